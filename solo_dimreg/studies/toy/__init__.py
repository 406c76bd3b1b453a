"""DirectCLR's two toy experiments."""
