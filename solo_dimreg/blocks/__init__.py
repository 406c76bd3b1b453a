"""What the blocks of a config become, a module a block."""
