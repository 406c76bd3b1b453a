"""The embedded and the drawn data sets, which are written as image folders without any download."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from solo_dimreg.datasets.digits import write_digits
from solo_dimreg.datasets.sprites import write_sprites

#: name -> function ``(out, *, force=False) -> Path`` that writes the data set into the folder ``out``.
#: Sprites have further options.
DATASETS: dict[str, Callable[..., Path]] = {"digits": write_digits, "sprites": write_sprites}

__all__ = ["DATASETS", "write_digits", "write_sprites"]
