"""Figures that show whether a representation has collapsed, and their plots."""
