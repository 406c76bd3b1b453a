"""Metrics that show whether features have collapsed, and the verdict from them."""
