"""The public names of ``solo_dimreg`` beyond the modules of ``nn``; each is imported when first used."""
