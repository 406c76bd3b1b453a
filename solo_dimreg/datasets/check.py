"""Check image folders: decode every image, or a sample, and name what a training would fail on."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from solo_dimreg.datasets.images import (
    IMAGE_SUFFIXES,
    image_files,
    is_deep,
    is_transparent,
    load_image,
    read_image,
    reason,
)
from solo_dimreg.errors import ConfigError

NO_IMAGES = f"has no images ({', '.join(sorted(IMAGE_SUFFIXES))})."
CIRCLE = "is a link that leads back to a folder above it, so its images would be read many times"
HIDDEN = "is a hidden folder, which a training would take for a class or for a part of one"
TRAINING = ("train", "training")
HELD_BACK = ("val", "valid", "validation", "test", "testing")
SPLITS = (*TRAINING, *HELD_BACK)
# The number of images that are decoded before a training, evenly spread over all of them.
SAMPLE = 64


@dataclass
class Found:
    """The content of an image folder.

    Attributes:
        images: The number of images that were decoded.
        faults: For each file or folder with a fault, what is wrong.
        modes, sizes: The number of images of each mode, and of each width and height.
        deep: The images of more than 8 bits a channel.
        transparent: The images with transparent parts.
        blank: The images that are read as a single colour.
    """

    images: int = 0
    faults: dict[Path, str] = field(default_factory=dict)
    modes: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    deep: list[Path] = field(default_factory=list)
    transparent: list[Path] = field(default_factory=list)
    blank: list[Path] = field(default_factory=list)

    def readings(self) -> list[str]:
        """Return a clause for each kind of image that is converted when it is read, or is blank."""
        kinds = (
            (self.deep, "of more than 8 bits a channel, scaled to 8 bits by its own range"),
            (self.transparent, "transparent in parts, composed onto white"),
            (self.blank, "read as a single colour"),
        )
        return [f"{len(paths)} {what} (such as {paths[0]})" for paths, what in kinds if paths]


def check_images(folder: Path) -> Found:
    """Decode every image below a folder, with a progress bar.

    Raises:
        ConfigError: there is no such folder, or there is no image in it.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is not a folder.")
    found = decode(sorted(image_paths(folder)), progress=True)
    if not found.images and not found.faults:
        raise ConfigError(f"{folder}: {NO_IMAGES}")
    found.faults |= dict(misplaced(folder))
    for classes in split_folders(folder) or [folder]:
        found.faults |= dict.fromkeys(hidden_folders(classes), HIDDEN)
    return found


def decode(paths: Sequence[Path], progress: bool = False) -> Found:
    """Decode images, and return what was found."""
    found = Found()
    for path in tqdm(paths, desc="images", unit="image", disable=None if progress else True):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(path) as image:
                    mode, size, deep = image.mode, image.size, is_deep(image)
                    transparent = is_transparent(image)
                extrema: Any = read_image(path).getextrema()
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            found.faults[path] = f"has more than {Image.MAX_IMAGE_PIXELS} pixels: a decompression bomb?"
        except Exception as error:
            found.faults[path] = reason(error)
        else:
            found.images += 1
            found.modes[mode] += 1
            found.sizes[size] += 1
            if deep:
                found.deep.append(path)
            if transparent:
                found.transparent.append(path)
            if all(low == high for low, high in extrema):
                found.blank.append(path)
    return found


def evenly_spread(paths: Sequence[Path]) -> Sequence[Path]:
    """Return at most ``SAMPLE`` of the paths, evenly spread."""
    count = min(len(paths), SAMPLE)
    return [paths[number * len(paths) // count] for number in range(count)]


def readings_of(dataset: Any) -> str:
    """Return a sentence on how a sample of a data set is read; empty if all images are read unchanged.

    The data set, of torchvision or solo-learn, holds images on disk.
    """
    found = decode(evenly_spread(image_files(dataset)))
    clauses = found.readings()
    return f"of {found.images} images looked at, {'; '.join(clauses)}." if clauses else ""


def check_plain(key: str, folder: Path, reader: str) -> None:
    """Raise if torchvision's reader, unlike ours, would misread a sample of the images below a folder.

    Raises:
        ConfigError: a plain conversion to 8 bits changes the pixels of an image. The message names the
            ``key`` of the config and the first such image, and ends with a clause on the other ``reader``.
    """
    for path in evenly_spread(sorted(image_paths(folder))):
        with Image.open(path) as image:
            kind = "has more than 8 bits a channel" if is_deep(image) else "has its drawing in alpha"
            plain = image.convert("RGB")
        if plain.tobytes() != load_image(path).tobytes():
            raise ConfigError(f"{key}: {path} {kind}, {reader}.")


def image_paths(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder that are named as images; follow links to folders, circles once."""
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


def misplaced(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the links that lead back to a folder above them, and the hidden folders that hold images.

    Each comes with what is wrong. torchvision follows such a link 40 times.
    """
    for parent, folders, files in os.walk(folder, followlinks=True):
        above = [Path(parent), *(each for each in Path(parent).parents if each.is_relative_to(folder))]
        inside = [each.resolve() for each in above]
        for name in folders[:]:
            path = Path(parent, name)
            if path.is_symlink() and any(each.is_relative_to(path.resolve()) for each in inside):
                folders.remove(name)
                yield path, CIRCLE
        hidden = [each for each in above if each != folder and each.name.startswith(".")]
        if hidden and any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in files):
            folders.clear()
            yield hidden[-1], HIDDEN


def hidden_folders(folder: Path) -> list[Path]:
    """Return the hidden folders among the class folders of a folder, even empty ones."""
    return sorted(each for each in folder.iterdir() if each.name.startswith(".") and each.is_dir())


def split_folders(folder: Path) -> list[Path]:
    """Return the folders in a folder that are named as splits and hold class folders, training first."""
    named = [each for each in folder.iterdir() if each.name.lower() in SPLITS and each.is_dir()]
    splits = [each for each in named if any(inner.is_dir() for inner in each.iterdir())]
    return sorted(splits, key=lambda each: SPLITS.index(each.name.lower()))
