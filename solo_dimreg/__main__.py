"""``python -m solo_dimreg`` is ``solo-dimreg``."""

from solo_dimreg.cli import main

if __name__ == "__main__":
    main()
