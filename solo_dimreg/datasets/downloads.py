"""Checks and errors for the data sets that solo-learn downloads by name."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from solo_dimreg.datasets.check import split_folders
from solo_dimreg.datasets.images import IMAGE_SUFFIXES
from solo_dimreg.errors import ConfigError, brief

#: name in a config -> torchvision's class
DOWNLOADED = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "stl10": "STL10"}


def check_download_folder(dataset: str, key: str, path: Path) -> None:
    """Raise if a folder holds images where the files of a torchvision data set belong.

    The data set is one of ``DOWNLOADED``. The folder, which ``key`` in the config names, need not exist yet.

    Raises:
        ConfigError: the folder or its class folders hold images, and not the files of the data set.
    """
    from torchvision import datasets

    own = getattr(datasets, DOWNLOADED[dataset])
    if not path.is_dir() or any((path / name).exists() for name in (own.base_folder, own.filename)):
        return
    folders = [path, *(each for each in path.iterdir() if each.is_dir())]
    files = (each for folder in folders for each in folder.iterdir())
    if split_folders(path) or any(each.suffix.lower() in IMAGE_SUFFIXES for each in files):
        raise ConfigError(
            f"data.dataset: is {dataset!r}, whose own files solo-learn reads or downloads, but {key} "
            f"({str(path)!r}) is a folder of images; data.dataset must be 'custom', which reads a folder."
        )


@contextmanager
def explained_download(dataset: str, path: str | Path | None) -> Iterator[None]:
    """Explain the error within the context if solo-learn neither finds nor can download a data set.

    Raises:
        ConfigError: names the data set, the place of its files, and why they cannot be downloaded.
    """
    try:
        yield
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        if dataset not in DOWNLOADED:
            raise
        raise ConfigError(
            f"data.dataset: {dataset!r} is not below data.train_path ({str(path)!r}) and data.val_path, and "
            f"cannot be downloaded ({brief(error)}); put its files there. For a folder of your own images, "
            "data.dataset must be 'custom', which reads a folder."
        ) from error
