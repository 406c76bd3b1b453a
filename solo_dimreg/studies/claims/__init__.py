"""Claims of the papers, tried: each with a rule that is fixed before anything is run."""
