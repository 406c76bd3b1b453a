"""Digits over patches: the digit is there in colour, and gone in grey."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import RidgeClassifier
from torchvision.transforms import RandomGrayscale

from solo_dimreg.datasets import overlay
from solo_dimreg.datasets.overlay import DIGIT, draw_digit, write_overlay
from solo_dimreg.errors import ConfigError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_overlay(tmp_path_factory.mktemp("data") / "overlay", patches=60)


def read(folder, split):
    paths = sorted((folder / split).glob("*/*.png"))
    images = np.stack([np.asarray(Image.open(path)) for path in paths]).astype(float)
    return images, [path.parent.name for path in paths], [path.name.partition("-")[0] for path in paths]


def test_all_images_are_there(folder):
    manifest = json.loads((folder / "dataset.json").read_text())
    assert manifest["splits"] == {"train": 768, "val": 192}
    images, digits, pictures = read(folder, "val")
    assert images.shape == (192, 32, 32, 3)
    assert set(digits) == set("0123456789") and len(set(pictures)) == 16


def test_grey_removes_the_digit_and_nothing_else():
    generator = np.random.default_rng(0)
    patch = generator.integers(0, 256, (32, 32), dtype=np.uint8)
    digit, nothing = generator.uniform(0, 16, (8, 8)), np.zeros((8, 8))
    drawn, bare = (Image.fromarray(draw_digit(patch, each, np.array([3, 5]))) for each in (digit, nothing))
    grey = RandomGrayscale(p=1.0)  # as in solo-learn's pipeline
    difference = np.asarray(grey(drawn)).astype(int) - np.asarray(grey(bare)).astype(int)
    assert np.abs(difference).max() <= 1
    colour = np.abs(np.asarray(drawn).astype(int) - np.asarray(bare).astype(int))
    assert colour[3 : 3 + DIGIT, 5 : 5 + DIGIT].max() > 40 and colour[..., 2].max() == 0
    colour[3 : 3 + DIGIT, 5 : 5 + DIGIT] = 0
    assert colour.max() == 0


def test_digits_can_be_read_in_colour_and_not_in_grey(folder):
    """Red minus green, smoothed by pooling, tells the digits; the grey values do not."""
    accuracy = {}
    weights = np.array([0.299, 0.587, 0.114])
    for name, view in (("colour", lambda x: x[..., 0] - x[..., 1]), ("grey", lambda x: x @ weights)):
        sets = [read(folder, split) for split in ("train", "val")]
        pooled = [view(x).reshape(-1, 16, 2, 16, 2).mean(axis=(2, 4)).reshape(-1, 256) for x, _, _ in sets]
        probe = RidgeClassifier(alpha=1e4).fit(pooled[0], sets[0][1])
        accuracy[name] = probe.score(pooled[1], sets[1][1])
    assert accuracy["colour"] > accuracy["grey"] + 0.15


OTHER = {"BRIGHTEST": 160, "INK": np.array([50.0, -25.5, 0.0]), "DIGIT": 20}


@pytest.mark.parametrize("constant", OTHER)
def test_images_that_were_drawn_otherwise_are_not_taken_for_these(
    folder: Path, monkeypatch: pytest.MonkeyPatch, constant: str
) -> None:
    """A study on them would be recorded as one on the images of today."""
    monkeypatch.setattr(overlay, constant, OTHER[constant])
    with pytest.raises(ConfigError, match="holds another data set, or another version of 'overlay'"):
        write_overlay(folder, patches=60)


def test_wrong_options_leave_nothing_behind(tmp_path):
    with pytest.raises(ConfigError, match="patches must be an integer >= 5, got 4"):
        write_overlay(tmp_path / "overlay", patches=4)
    assert not list(tmp_path.iterdir())
