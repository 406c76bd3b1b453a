"""What ``from solo_dimreg import`` gives beyond the modules of ``nn``: imported when first used."""
