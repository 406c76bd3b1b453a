"""The claims of the papers and their tests, each with a rule that is fixed before anything runs."""
