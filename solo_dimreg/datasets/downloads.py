"""The data sets that solo-learn downloads by name: names what is wrong where their files cannot be had."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from solo_dimreg.datasets.check import split_folders
from solo_dimreg.datasets.images import IMAGE_SUFFIXES
from solo_dimreg.errors import ConfigError

#: name in a config -> torchvision's class
DOWNLOADED = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "stl10": "STL10"}


def check_download_folder(dataset: str, key: str, path: Path) -> None:
    """Refuse a folder of images where the files of a data set of torchvision's belong.

    Args:
        dataset: A key of ``DOWNLOADED``.
        key: The key of the config that names the folder.
        path: The folder, which need not be there yet.

    Raises:
        ConfigError: it holds images, in it or in class folders, and not those files.
    """
    if not path.is_dir() or _has_files(dataset, path):
        return
    entries = sorted(path.iterdir())
    folders = [path, *(entry for entry in entries if entry.is_dir())]
    if split_folders(path) or any(_holds_images(folder) for folder in folders):
        raise ConfigError(
            f"data.dataset: is {dataset!r}, whose own files solo-learn reads or downloads, but {key} "
            f"({str(path)!r}) is a folder of images; data.dataset must be 'custom', which reads a folder."
        )


@contextmanager
def explained_download(dataset: str, path: str | Path | None) -> Iterator[None]:
    """Name the data set where solo-learn neither finds its files nor can download them.

    Raises:
        ConfigError: names the data set, where its files should be, and why they cannot be downloaded.
    """
    try:
        yield
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        if dataset not in DOWNLOADED:
            raise
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ConfigError(
            f"data.dataset: {dataset!r} is not below data.train_path ({str(path)!r}) and data.val_path, and "
            f"cannot be downloaded ({type(error).__name__}: {reason}); put its files there, or, for a folder "
            "of your own images, data.dataset must be 'custom', which reads a folder."
        ) from error


def _has_files(dataset: str, path: Path) -> bool:
    """Whether the files of a data set of torchvision's, or its archive, are in a folder."""
    from torchvision import datasets

    kind = getattr(datasets, DOWNLOADED[dataset])
    return any((path / name).exists() for name in (kind.base_folder, kind.filename))


def _holds_images(folder: Path) -> bool:
    return any(each.suffix.lower() in IMAGE_SUFFIXES for each in folder.iterdir())
