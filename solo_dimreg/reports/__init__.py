"""Reports: HTML pages and tables of the metrics."""
