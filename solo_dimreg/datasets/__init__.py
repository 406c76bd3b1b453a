"""The embedded data sets: each is written out as image folders, without any download."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from solo_dimreg.datasets.digits import write_digits

#: name -> function ``(out, *, force=False) -> Path`` that writes the data set into the folder ``out``
DATASETS: dict[str, Callable[..., Path]] = {"digits": write_digits}

__all__ = ["DATASETS", "write_digits"]
