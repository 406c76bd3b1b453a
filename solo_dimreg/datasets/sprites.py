"""Drawn shapes whose images have a known dimension, the number of free factors."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from solo_dimreg.datasets.folder import write_image_folder
from solo_dimreg.functional._checks import check_int

Array = NDArray[np.floating]

#: The factors in the order in which they are freed, each with its range. A held factor has the middle of its
#: range, or its value in ``HELD``. ``size`` is the radius of the shape, and ``x`` and ``y`` are its place
#: right of and below the centre, all in units of the image's width. ``angle`` (clockwise) and ``hue`` (red 0,
#: green 1/3) are in turns. ``width`` is the extent of the shape across its axis, as a part of its full width.
#: ``light`` is the brightness of its colour and ``ground`` the brightness of the background.
#: The ranges are narrow, so that a path through them hardly bends in pixel space, and have similar lengths
#: there. Otherwise the LID of a few thousand images is far from the number of factors.
FACTORS: dict[str, tuple[float, float]] = {
    "size": (0.21, 0.36),
    "angle": (-0.1, 0.1),
    "x": (-0.07, 0.07),
    "y": (-0.07, 0.07),
    "hue": (-0.25, 0.25),
    "width": (0.7, 1.0),
    "light": (0.35, 0.65),
    "ground": (0.0, 0.2),
}
#: The values of the factors that are not held in the middle of their range.
HELD = {"width": 1.0, "light": 0.6, "ground": 0.05}
FIRST = 5  # the factors that the first version had: the same seed still gives them the same values
# The width of the edges, in units of the image's width. If an edge is sharper than its shift between two
# neighbours, the image changes by the square root of the shift, and the LID is up to twice the dimension.
EDGE = 0.12
SATURATION = 0.35  # of the colours, which lie on a circle around a grey
DECIMALS = 6
EVERY = 5  # one in this many images of a shape is for validation
BATCH_PIXELS = 2**18  # the pixels that are drawn at a time


def _drop(u: Array, v: Array) -> Array:
    """Return the distance to a drop: the union of discs along a line, with a linearly falling radius."""
    start, end, thick, thin = -0.45, 0.93, 0.55, 0.07
    length = end - start
    sine = (thick - thin) / length
    v = np.abs(v)
    along = np.clip((u - start - v * sine / (1 - sine**2) ** 0.5) / length, 0, 1)
    return np.hypot(u - start - along * length, v) - (thick + along * (thin - thick))


def _hook(u: Array, v: Array) -> Array:
    """Return the distance to the letter L."""
    return np.minimum(_box(u + 0.35, v, 0.25, 0.8), _box(u, v - 0.55, 0.6, 0.25))


def _moon(u: Array, v: Array) -> Array:
    """Return the distance to a moon: a disc without the part that another disc covers."""
    return np.maximum(np.hypot(u, v) - 1, 0.75 - np.hypot(u - 0.55, v))


def _box(u: Array, v: Array, width: float, height: float) -> Array:
    beside, above = np.abs(u) - width, np.abs(v) - height
    return np.hypot(beside.clip(0), above.clip(0)) + np.maximum(beside, above).clip(max=0)


#: Signed distances to shapes in the unit disc, negative inside. None has a rotational symmetry.
SHAPES: dict[str, Callable[[Array, Array], Array]] = {"drop": _drop, "hook": _hook, "moon": _moon}


def draw_sprites(shape: str, factors: Array, size: int = 32) -> NDArray[np.uint8]:
    """Return RGB images, (N, size, size, 3), of one of ``SHAPES`` with ``FACTORS`` (N, 8).

    The edges are soft, so that small changes of a factor change the image little.
    """
    radius, angle, x, y, hue, width, light, ground = np.asarray(factors, dtype=np.float32).T[:, :, None, None]
    centres = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    right, down = centres - x, centres[:, None] - y
    cosine, sine = np.cos(2 * np.pi * angle), np.sin(2 * np.pi * angle)
    distance = SHAPES[shape](
        (cosine * right + sine * down) / radius, (cosine * down - sine * right) / (radius * width)
    )
    ramp = np.clip(0.5 - distance * radius / np.float32(EDGE), 0, 1)
    cover = (ramp**2 * (3 - 2 * ramp))[..., None]
    phases = hue[..., None] - np.arange(3, dtype=np.float32) / 3
    colour, ground = light[..., None] + SATURATION * np.cos(2 * np.pi * phases), ground[..., None]
    return np.rint(255 * (ground + cover * (colour - ground))).astype(np.uint8)


def sample_factors(images: int, free: int, seed: int = 0) -> Array:
    """Return random factors of images, (images, 8): the first ``free`` ones are uniform, the others held.

    The same seed gives the same values, whatever the number of images and of free factors.
    """
    low, high = np.array(list(FACTORS.values())).T
    first = np.random.default_rng(seed).random((images, FIRST))
    others = np.random.default_rng([seed, FIRST]).random((images, len(FACTORS) - FIRST))
    position = np.hstack([first, others])
    values = low + position * (high - low)
    values[:, free:] = [HELD.get(name, sum(limits) / 2) for name, limits in list(FACTORS.items())[free:]]
    return np.round(values, DECIMALS)


def write_sprites(
    out: Path, *, factors: int = 3, images: int = 10_000, size: int = 32, seed: int = 0, force: bool = False
) -> Path:
    """Write sprites as ``out/{train,val}/<shape>/NNNNN.png``, and ``out/factors.csv`` with their factors.

    The images of each shape are a manifold of dimension ``factors``. The LID of the pixels shows it within
    about a tenth from 2,000 images on. With a single factor 10,000 images lie so close that their rounding to
    8 bits shows as well: the LID is 1.6 instead of 1.0 with 32 neighbours. A fifth of every shape is for
    validation. ``out``, ``force`` and the errors for a folder are those of
    :func:`solo_dimreg.datasets.folder.write_image_folder`.

    Args:
        factors: number of the leading ``FACTORS`` that are free; the others are held.
        images: number of images, in both splits together.
        size: width and height of the images in pixels.
        seed: seed of the factors.

    Raises:
        ConfigError: an option is out of range.
    """
    check_int("factors", factors, 1, len(FACTORS))
    check_int("images", images, EVERY * len(SHAPES))
    check_int("size", size, 16)
    check_int("seed", seed, 0)
    values = sample_factors(images, factors, seed)
    names = [_name(index) for index in range(images)]
    manifest = {
        "name": "sprites",
        "description": "Drawn shapes; the dimension of the images of each is the number of free factors",
        "classes": list(SHAPES),
        "image_size": size,
        "free_factors": list(FACTORS)[:factors],
        "held_factors": list(FACTORS)[factors:],
        "held": HELD,
        "ranges": {name: list(limits) for name, limits in FACTORS.items()},
        "edge": EDGE,
        "seed": seed,
        "splits": {split: sum(name.startswith(split) for name in names) for split in ("train", "val")},
    }
    lines = [",".join(("path", "shape", *FACTORS))]
    for name, row in zip(names, values, strict=True):
        lines.append(",".join((name, name.split("/")[1], *(f"{value:.{DECIMALS}f}" for value in row))))
    texts = {"factors.csv": "\n".join(lines) + "\n"}
    return write_image_folder(Path(out), manifest, _images(names, values, size), texts=texts, force=force)


def read_split(data: Path, split: str, free: int) -> tuple[list[Path], dict[str, Array]]:
    """Return the paths and the free factors of a split's images, in the order of an image folder."""
    with (data / "factors.csv").open(encoding="utf-8", newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["path"].startswith(f"{split}/")]
    lines.sort(key=lambda line: line["path"])
    factors = {name: np.array([float(line[name]) for line in lines]) for name in list(FACTORS)[:free]}
    return [data / line["path"] for line in lines], factors


def _name(index: int) -> str:
    within, shape = divmod(index, len(SHAPES))
    split = "val" if within % EVERY == EVERY - 1 else "train"
    return f"{split}/{list(SHAPES)[shape]}/{index:05d}.png"


def _images(names: list[str], values: Array, size: int) -> Iterator[tuple[str, Image.Image]]:
    for number, shape in enumerate(SHAPES):
        own = np.arange(number, len(names), len(SHAPES))
        batch = max(1, BATCH_PIXELS // size**2)
        for start in range(0, len(own), batch):
            chosen = own[start : start + batch]
            for index, pixels in zip(chosen, draw_sprites(shape, values[chosen], size), strict=True):
                yield names[index], Image.fromarray(pixels)
