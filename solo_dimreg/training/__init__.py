"""Pretrain, resume and evaluate."""
