"""Load what ``torch.save`` wrote, without running its code."""

from __future__ import annotations

import argparse
import warnings
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from solo_dimreg.errors import ConfigError

# The first bytes of a file that torch.save wrote: a ZIP file, or before version 1.6 a pickle.
STARTS = (b"PK", b"\x80")


def load_torch(path: Path, mmap: bool = False) -> Any:
    """Return the tensors, and the containers around them, of a file that ``torch.save`` wrote.

    Args:
        path: The file, which is never run as code.
        mmap: Leave the tensors on disk until they are read, where the format of the file allows that.

    Raises:
        ConfigError: the file is of another program, or holds more than tensors.
    """
    # torch takes any other file for a pickle, and its messages are about pickles.
    with path.open("rb") as file:
        if not file.read(2).startswith(STARTS):
            raise ConfigError(f"{path}: is not a file that torch.save wrote.")
    mmap = mmap and zipfile.is_zipfile(path)
    with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
        warnings.simplefilter("ignore")  # warnings of another pickle protocol, in files that are refused
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        except UnpicklingError as error:
            raise ConfigError(
                f"{path}: holds more than tensors and is not loaded, since it could run code; save tensors "
                "only."
            ) from error
