"""The embedded and the drawn data sets, which are written as image folders without any download."""
