"""Find out the layout of a folder of images, the size of the images, and whether they have colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from solo_dimreg.datasets.check import IMAGE_SUFFIXES, image_paths
from solo_dimreg.errors import ConfigError

# The usual names of the folder of images that are held back.
VALIDATION = ("val", "valid", "validation", "test")
# The number of images that are decoded for their size and colour.
SAMPLE = 64
# The channels of a grey JPEG that was saved in colour may differ by this much, from rounding.
GREY = 8


@dataclass(frozen=True)
class Layout:
    """The layout of a folder of images.

    Attributes:
        train: The folder of the training images.
        val: The folder of the validation images; None if none are held back.
        classes: The names of the class folders; empty for images without labels.
        images: The number of training images.
        side: The median of the shorter sides, in pixels.
        grey: True if the images have no colour.
    """

    train: Path
    val: Path | None
    classes: tuple[str, ...]
    images: int
    side: int
    grey: bool


def look_at(folder: Path) -> Layout:
    """Return the layout of a folder of images.

    The folder holds ``train/`` and ``val/`` with a folder per class, or a folder per class, or only images.

    Raises:
        ConfigError: there is no such folder, or it has another layout.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is not a folder; it must be a folder of images.")
    folder = folder.resolve()
    train, val = folder, None
    if (folder / "train").is_dir():
        train = folder / "train"
        val = next((folder / name for name in VALIDATION if (folder / name).is_dir()), None)
    folders = [each for each in sorted(train.iterdir()) if each.is_dir() and not each.name.startswith(".")]
    classes = [each for each in folders if next(image_paths(each), None)]
    if len(classes) == 1 and val is None:  # one label for all images tells nothing
        train, classes = classes[0], []
    paths = sorted(path for each in classes or [train] for path in image_paths(each))
    if not paths:
        raise ConfigError(f"{train}: has no images ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    if not classes:
        _check_flat(train)
    side, grey = _seen(paths)
    return Layout(train, val, tuple(each.name for each in classes), len(paths), side, grey)


def _check_flat(folder: Path) -> None:
    for each in sorted(folder.iterdir()):
        if each.is_dir() or each.suffix.lower() not in IMAGE_SUFFIXES:
            raise ConfigError(
                f"{folder}: {each.name!r} lies among the images and must be moved elsewhere: without class "
                "folders, solo-learn reads everything in the folder as an image."
            )


def _seen(paths: Sequence[Path]) -> tuple[int, bool]:
    """Return the median of the shorter sides, and whether no image of an even sample has colour."""
    sides, grey = [], True
    for path in paths[:: -(-len(paths) // SAMPLE)]:
        try:
            with Image.open(path) as image:
                sides.append(min(image.size))
                if grey and image.mode not in ("1", "L", "LA", "I", "F") and not image.mode.startswith("I;"):
                    grey = int(np.ptp(np.asarray(image.convert("RGB"), dtype=int), axis=2).max()) <= GREY
        except OSError as error:
            raise ConfigError(
                f"{path}: cannot be read as an image; 'solo-dimreg data check' lists all such files."
            ) from error
    return int(median(sides)), grey
