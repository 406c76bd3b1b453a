"""Find out the layout of a folder of images, the size of the images, and whether they have colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from solo_dimreg.datasets.check import HELD_BACK, NO_IMAGES, TRAINING, evenly_spread, image_paths
from solo_dimreg.datasets.images import IMAGE_SUFFIXES, load_image
from solo_dimreg.errors import ConfigError
from solo_dimreg.files import check_image_folder

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


def find_layout(folder: Path) -> Layout:
    """Return the layout of a folder of images.

    The folder holds ``train/`` and ``val/`` with a folder per class, or a folder per class, or only images.
    The first two may have other usual names, such as ``training/`` and ``test/``.

    Raises:
        ConfigError: there is no such folder, it has another layout, or an image cannot be read.
    """
    check_image_folder(folder)
    folder = folder.resolve()
    train, val = _named(folder, TRAINING), _named(folder, HELD_BACK)
    if train is None or (val is None and train.name.lower() != "train"):  # a class may be named "training"
        train, val = folder, None
    folders = [each for each in sorted(train.iterdir()) if each.is_dir() and not each.name.startswith(".")]
    classes = [each for each in folders if next(image_paths(each), None)]
    if len(classes) == 1 and val is None:  # one label for all images tells nothing
        train, classes = classes[0], []
    paths = sorted(path for each in classes or [train] for path in image_paths(each))
    if not paths:
        raise ConfigError(f"{train}: {NO_IMAGES}")
    for each in sorted(train.iterdir()) if not classes else ():
        if each.is_dir() or each.suffix.lower() not in IMAGE_SUFFIXES:
            raise ConfigError(
                f"{train}: {each.name!r} lies among the images and must be moved elsewhere: without class "
                "folders, solo-learn reads everything in the folder as an image."
            )
    sides, grey = [], True
    for path in evenly_spread(paths):
        image = load_image(path)
        sides.append(min(image.size))
        grey = grey and int(np.ptp(np.asarray(image, dtype=int), axis=2).max()) <= GREY
    names = tuple(each.name for each in classes)
    return Layout(train, val, names, len(paths), int(median(sides)), grey)


def _named(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the folder in a folder with the first of the names that is there, in any case."""
    found = {each.name.lower(): each for each in sorted(folder.iterdir()) if each.is_dir()}
    return next((found[name] for name in names if name in found), None)
