"""The blocks of a config in use, one module per block."""
