"""Digits over grey patches, in a colour that a grey view does not show: a feature that some views lack.

After the MNIST-on-CIFAR images of Xue et al., Investigating the Benefits of Projection Head for
Representation Learning, ICLR 2024, whose augmentation drops the digit from some of the views.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from solo_dimreg.datasets.digits import MAX_PIXEL, split_indices
from solo_dimreg.datasets.folder import write_image_folder
from solo_dimreg.datasets.patches import PICTURES, SIZE, counts_of, draw_patches

DIGIT = 26  # pixels, the side of a digit
DARKEST, BRIGHTEST = 112, 144  # of the patches, so faint that a small network sees the digits over them
# Red against green, such that the grey value 0.299 R + 0.587 G + 0.114 B of a pixel stays.
INK = np.array([92.0, -92.0 * 0.299 / 0.587, 0.0])


def write_overlay(out: Path, *, patches: int = 470, seed: int = 0, force: bool = False) -> Path:
    """Write digits over patches as ``out/{train,val}/<digit>/<picture>-NNNNN.png``; the class is the digit.

    The patches are grey. The ink changes the colour of a pixel and not its grey value. The ``grayscale``
    augmentation of solo-learn therefore removes the digit from a view, and only the digit, up to rounding.
    The patches and the digits of the two splits differ. The folder is complete or absent, even after an
    interruption.

    Args:
        out: folder to write, for example ``datasets/overlay``.
        patches: number of images over each of the 16 pictures, a fifth of them for validation; at least 5.
        seed: seed of the patches, the digits and their places.
        force: move an existing folder aside and write a new one.

    Returns:
        ``out``.

    Raises:
        ConfigError: ``out`` exists and is neither empty nor the same data set, or an option is out of range.
        DimregError: scikit-image or scikit-learn is missing, or does not contain these pictures.
    """
    counts = counts_of(patches, seed)
    manifest: dict[str, Any] = {
        "name": "overlay",
        "description": f"handwritten digits of {DIGIT} x {DIGIT} pixels over grey {SIZE} x {SIZE} patches, "
        "in a colour of the same grey value; the class is the digit",
        "source": "sklearn.datasets.load_digits; pictures in the wheels of scikit-image and scikit-learn",
        "licences": {name: picture.licence for name, picture in PICTURES.items()},
        "classes": [str(digit) for digit in range(10)],
        "image_size": SIZE,
        "greys": [DARKEST, BRIGHTEST],
        "ink": INK.round(2).tolist(),
        "seed": seed,
        "splits": {split: count * len(PICTURES) for split, count in counts.items()},
    }
    return write_image_folder(Path(out), manifest, _images(counts, seed), force=force)


def _images(counts: dict[str, int], seed: int) -> Iterator[tuple[str, Image.Image]]:
    digits = load_digits()
    indices = split_indices(digits.target)
    generator = np.random.default_rng([seed, len(PICTURES)])
    for name, patch in draw_patches(counts, seed):
        split, picture, file = name.split("/")
        index = generator.choice(indices[split])
        place = generator.integers(0, SIZE - DIGIT, size=2, endpoint=True)
        yield (
            f"{split}/{digits.target[index]}/{picture}-{file}",
            Image.fromarray(draw_digit(np.asarray(patch.convert("L")), digits.images[index], place)),
        )


def draw_digit(patch: np.ndarray, digit: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return a grey patch, in a narrower range of values, with a digit in isoluminant ink, as RGB.

    Args:
        patch: Grey values of 0 to 255 (height, width).
        digit: Ink of 0 to 16 (8, 8).
        place: Row and column of the upper left corner.
    """
    ink = Image.fromarray((digit / MAX_PIXEL).astype(np.float32))
    shape = np.asarray(ink.resize((DIGIT, DIGIT), Image.Resampling.BILINEAR))
    drawn = DARKEST + np.repeat(patch[..., None], 3, axis=2) * ((BRIGHTEST - DARKEST) / 255)
    (top, left) = place
    drawn[top : top + DIGIT, left : left + DIGIT] += shape[..., None] * INK
    return np.rint(drawn).astype(np.uint8)
