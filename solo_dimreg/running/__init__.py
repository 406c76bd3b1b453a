"""Pretraining and evaluation: settings, checks and the functions that run them."""
