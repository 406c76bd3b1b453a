"""Patches of photographs and textures from installed packages: natural images without a download."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from solo_dimreg.datasets.folder import write_image_folder
from solo_dimreg.datasets.packages import file_in
from solo_dimreg.errors import ConfigError
from solo_dimreg.functional._checks import check_int

SIZE = 32
CELL = 64  # pixels: pictures are cut into squares of this size, some of them for validation
VAL_FRACTION = 0.2
FLAT = 4.0  # standard deviation of grey levels, of 255, below which a patch shows nothing, such as night sky


class Picture(NamedTuple):
    """A picture in a package, and its licence according to the package's documentation."""

    package: str
    file: str
    licence: str


PICTURES = {
    "astronaut": Picture("skimage", "data/astronaut.png", "public domain (NASA)"),
    "brick": Picture("skimage", "data/brick.png", "CC0 (CC0Textures)"),
    "camera": Picture("skimage", "data/camera.png", "CC0 (Lav Varshney)"),
    "chelsea": Picture("skimage", "data/chelsea.png", "CC0 (Stefan van der Walt)"),
    "china": Picture("sklearn", "datasets/images/china.jpg", "CC BY 2.0 (danielbuechele, Flickr)"),
    "coffee": Picture("skimage", "data/coffee.png", "CC0 (Rachel Michetti)"),
    "coins": Picture("skimage", "data/coins.png", "no known copyright restrictions (Brooklyn Museum)"),
    "flower": Picture("sklearn", "datasets/images/flower.jpg", "CC BY 2.0 (vultilion, Flickr)"),
    "grass": Picture("skimage", "data/grass.png", "CC0 (linolafett, DeviantArt)"),
    "gravel": Picture("skimage", "data/gravel.png", "CC0 (CC0Textures)"),
    "hubble": Picture("skimage", "data/hubble_deep_field.jpg", "public domain (NASA)"),
    "ihc": Picture("skimage", "data/ihc.png", "no known copyright restrictions (CMMI)"),
    "moon": Picture("skimage", "data/moon.png", "not stated by scikit-image"),
    "motorcycle": Picture(
        "skimage",
        "data/motorcycle_left.png",
        "not stated by scikit-image (Middlebury 2014 stereo benchmark, Scharstein et al., GCPR 2014)",
    ),
    "retina": Picture("skimage", "data/retina.jpg", "CC0 (Mikael Häggström)"),
    "rocket": Picture("skimage", "data/rocket.jpg", "public domain (SpaceX)"),
}


def write_patches(out: Path, *, patches: int = 150, seed: int = 0, force: bool = False) -> Path:
    """Write patches as ``out/{train,val}/<picture>/NNNNN.png``; the class is the picture.

    Each picture is cut into squares of 64 x 64 pixels, and a random fifth of them is for validation. A patch
    for validation lies inside such squares, and a patch for training touches none of them. Patches that show
    next to nothing are left out. ``out``, ``force`` and the errors for a folder are those of
    :func:`solo_dimreg.datasets.folder.write_image_folder`.

    Args:
        patches: number of patches of each of the 16 pictures, a fifth of them for validation; at least 5.
        seed: seed of the squares and the positions.

    Raises:
        ConfigError: an option is out of range.
        DimregError: scikit-image or scikit-learn is missing, or does not contain these pictures.
    """
    counts = counts_of(patches, seed)
    manifest: dict[str, Any] = {
        "name": "patches",
        "description": f"{SIZE} x {SIZE} patches of photographs and textures, RGB; the class is the picture; "
        "training and validation from disjoint regions",
        "source": "pictures in the wheels of scikit-image and scikit-learn",
        "licences": {name: picture.licence for name, picture in PICTURES.items()},
        "classes": list(PICTURES),
        "image_size": SIZE,
        "seed": seed,
        "splits": {split: count * len(PICTURES) for split, count in counts.items()},
    }
    return write_image_folder(Path(out), manifest, draw_patches(counts, seed), force=force)


def counts_of(patches: int, seed: int) -> dict[str, int]:
    """Return the number of patches of each picture in each split, after checking both options."""
    check_int("patches", patches, minimum=5)
    check_int("seed", seed, minimum=0)
    val = round(patches * VAL_FRACTION)
    return {"train": patches - val, "val": val}


def draw_patches(counts: dict[str, int], seed: int) -> Iterator[tuple[str, Image.Image]]:
    """Yield ``<split>/<picture>/<index>.png`` and the patch, ``counts[split]`` of each picture."""
    for number, (name, picture) in enumerate(PICTURES.items()):
        pixels = np.asarray(Image.open(file_in(picture.package, picture.file)).convert("RGB"))
        generator = np.random.default_rng([seed, number])
        for_val = _validation_pixels(pixels.shape[:2], generator)
        for split, count in counts.items():
            chosen = _positions(pixels, for_val if split == "val" else ~for_val, count, generator)
            for index, (y, x) in enumerate(chosen):
                patch = Image.fromarray(pixels[y : y + SIZE, x : x + SIZE])
                yield f"{split}/{name}/{index:05d}.png", patch


def _validation_pixels(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Return a mask (H, W) of the pixels for validation; pixels outside of whole squares never are."""
    rows, columns = (length // CELL for length in shape)
    cells = np.zeros(rows * columns, dtype=bool)
    cells[generator.permutation(len(cells))[: max(1, round(VAL_FRACTION * len(cells)))]] = True
    pixels = np.zeros(shape, dtype=bool)
    squares = cells.reshape(rows, columns).repeat(CELL, axis=0).repeat(CELL, axis=1)
    pixels[: rows * CELL, : columns * CELL] = squares
    return pixels


def _positions(
    pixels: np.ndarray, allowed: np.ndarray, count: int, generator: np.random.Generator
) -> list[tuple[int, int]]:
    """Return different upper left corners, in the order of the draw, of patches of allowed pixels only."""
    counts = np.pad(allowed, ((1, 0), (1, 0))).cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    counts = counts[SIZE:] - counts[:-SIZE]
    inside = counts[:, SIZE:] - counts[:, :-SIZE] == SIZE * SIZE
    corners = generator.permutation(np.argwhere(inside))
    grey = pixels.mean(axis=2)
    shown = ((int(y), int(x)) for y, x in corners if grey[y : y + SIZE, x : x + SIZE].std() >= FLAT)
    found = list(islice(shown, count))
    if len(found) < count:
        raise ConfigError(
            f"patches: a picture has only {len(found)} of {count} patches for a split. Ask for fewer."
        )
    return found
