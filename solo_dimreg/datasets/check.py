"""Decodes every image of a folder once, and names those that a training would fail on or misread."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from solo_dimreg.errors import ConfigError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
LISTS = "'solo-dimreg data check' lists all such files."
CIRCLE = "is a link that leads back to a folder above it, whose images would be taken many times"
# Pillow cuts the values of these modes off when it makes RGB of them.
DEEP = ("I", "F", "I;16", "I;16B", "I;16L")


@dataclass
class Found:
    """What is in a folder.

    Attributes:
        images: How many images were decoded.
        faults: What is wrong with which file.
        modes, sizes: How many images have which mode, and which width and height.
    """

    images: int = 0
    faults: dict[Path, str] = field(default_factory=dict)
    modes: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)


def check_images(folder: Path) -> Found:
    """Decodes every image below a folder, with a progress bar.

    Raises:
        ConfigError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is no folder.")
    found = Found()
    paths = sorted(image_paths(folder))
    for path in tqdm(paths, desc="images", unit="image", disable=None):
        if fault := image_fault(path, found):
            found.faults[path] = fault
        else:
            found.images += 1
    found.faults |= dict.fromkeys(circles(folder), CIRCLE)
    if not paths:
        raise ConfigError(f"{folder}: has no images ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    return found


def image_paths(folder: Path) -> Iterator[Path]:
    """Everything below a folder that is named as an image; links to folders are followed, circles once."""
    seen: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:
        raise ConfigError(f"{error.filename}: the folder cannot be read ({error.strerror}).") from error

    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        state = os.stat(parent)
        if (state.st_dev, state.st_ino) in seen:
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        yield from (Path(parent, name) for name in files if Path(name).suffix.lower() in IMAGE_SUFFIXES)


def circles(folder: Path) -> Iterator[Path]:
    """The links below a folder that lead back to one that they are in, which torchvision follows 40 times."""
    for parent, folders, _ in os.walk(folder, followlinks=True):
        above = [Path(parent), *(each for each in Path(parent).parents if each.is_relative_to(folder))]
        inside = [each.resolve() for each in above]
        for name in folders[:]:
            path = Path(parent, name)
            if path.is_symlink() and any(each.is_relative_to(path.resolve()) for each in inside):
                folders.remove(name)
                yield path


def image_fault(path: Path, found: Found) -> str:
    """What is wrong with an image; empty where nothing is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return f"has more than {Image.MAX_IMAGE_PIXELS} pixels: a decompression bomb?"
    except Exception as error:
        return reason(error)
    found.modes[image.mode] += 1
    found.sizes[image.size] += 1
    return f"has the mode {image.mode}, whose values are cut off at 255" if image.mode in DEEP else ""


def reason(error: BaseException) -> str:
    """Why an image cannot be read, in a few words."""
    text = str(error).strip().partition("\n")[0]
    if isinstance(error, FileNotFoundError):
        return "is a link to a file that is not there"
    if isinstance(error, PermissionError):
        return "cannot be opened: permission denied"
    if "cannot identify image file" in text:
        return "is no image, or an empty or a damaged one"
    return f"cannot be read as an image ({text or type(error).__name__})"


def name_bad_images(dataset: Any) -> Any:
    """Makes the data set name the file that cannot be read, also from a worker process; returns it."""
    inner = dataset
    while hasattr(inner, "dataset"):
        inner = inner.dataset
    if hasattr(inner, "loader"):
        inner.loader = partial(_load, inner.loader)
    elif hasattr(inner, "root") and isinstance(getattr(inner, "images", None), list):
        # solo-learn's images without labels, which have no loader that one could exchange
        kind = type(inner)
        inner.__class__ = type(kind.__name__, (kind,), {"__getitem__": _naming(kind)})
    return dataset


def _naming(kind: Any) -> Callable[[Any, int], Any]:
    """The ``__getitem__`` of a data set of images without labels, which names one that cannot be read."""

    def get(dataset: Any, index: int) -> Any:
        try:
            return kind.__getitem__(dataset, index)
        except Exception as error:
            path = dataset.root / dataset.images[index]
            if not (fault := image_fault(path, Found())):
                raise
            raise ConfigError(f"{path}: {fault}. {LISTS}") from error

    return get


def _load(loader: Callable[[str], Any], path: str) -> Any:
    try:
        return loader(path)
    except Exception as error:
        raise ConfigError(f"{path}: {reason(error)}. {LISTS}") from error
