"""Settings: composing a config, its schema, and the checks of one setting against another."""
