"""scikit-learn's handwritten digits as image folders: real images from an installed package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from solo_dimreg.datasets.folder import write_image_folder

IMAGE_SIZE = 32
SPLIT_SEED = 0
VAL_FRACTION = 0.2
MAX_PIXEL = 16  # the originals count the inked pixels of 4 x 4 blocks

MANIFEST: dict[str, Any] = {
    "name": "digits",
    "description": "1,797 handwritten digits, 8 x 8 originals enlarged to 32 x 32 (bicubic), RGB",
    "source": "sklearn.datasets.load_digits",
    "citation": "E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, "
    "UCI Machine Learning Repository",
    "classes": [str(digit) for digit in range(10)],
    "image_size": IMAGE_SIZE,
    "split_seed": SPLIT_SEED,
    "splits": {"train": 1437, "val": 360},
}


def write_digits(out: Path, *, force: bool = False) -> Path:
    """Write the digits as ``out/{train,val}/{0..9}/NNNN.png``, where NNNN is the index in scikit-learn's set.

    The 80/20 split is stratified and the same on every machine. The folder is complete or absent, even after
    an interruption. A complete folder is left alone.

    Args:
        out: folder to write, for example ``datasets/digits``.
        force: move an existing folder aside and write a new one.

    Returns:
        ``out``.

    Raises:
        ConfigError: ``out`` exists and is neither empty nor a complete copy of the digits.
    """
    return write_image_folder(Path(out), MANIFEST, _images(), force=force)


def _images() -> Iterator[tuple[str, Image.Image]]:
    digits = load_digits()
    train, val = train_test_split(
        np.arange(len(digits.target)),
        test_size=VAL_FRACTION,
        stratify=digits.target,
        random_state=SPLIT_SEED,
    )
    pixels = np.rint(digits.images * (255 / MAX_PIXEL)).astype(np.uint8)
    for split, indices in (("train", train), ("val", val)):
        for index in np.sort(indices):
            image = Image.fromarray(pixels[index]).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
            yield f"{split}/{digits.target[index]}/{index:04d}.png", image.convert("RGB")
