"""Pretrains and evaluates: settings, checks and what runs them."""
