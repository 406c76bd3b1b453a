"""Shows: HTML pages and tables of what was measured."""
