"""Bad images: found beforehand, and named by a training, from worker processes too."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import BATCH, config

from solo_dimreg.datasets.check import check_images
from solo_dimreg.errors import ConfigError, one_line
from solo_dimreg.running.pretraining import pretrain


def truncated(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated.png": (truncated, "truncated"),
    "empty.png": (lambda path: path.touch(), "is no image"),
    "text.png": (lambda path: path.write_text("no image"), "is no image"),
    "gone.png": (lambda path: path.symlink_to("nowhere.png"), "link to a file that is not there"),
    "circle.png": (lambda path: path.symlink_to(path.name), "cannot be read"),
    "bomb.png": (lambda path: Image.new("1", (12_000, 12_000)).save(path), "decompression bomb"),
    "deep.png": (lambda path: Image.fromarray(np.full((8, 8), 9000, np.uint16)).save(path), "cut off"),
}
GOOD: dict[str, Image.Image] = {
    "grey.png": Image.new("L", (9, 9), 7),
    "alpha.png": Image.new("RGBA", (9, 9)),
    "palette.png": Image.new("P", (9, 9)),
    "one.png": Image.new("RGB", (1, 1)),
    "ümläut 'quoted' [x] #1.png": Image.new("RGB", (40, 3)),
}


@pytest.fixture
def images(few_digits: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(few_digits, tmp_path / "images"))


@pytest.mark.parametrize("name", BAD)
def test_every_bad_image_is_found(images: Path, name: str, here: Any) -> None:
    make, words = BAD[name]
    path = images / "train" / "3" / name
    make(path)
    found = check_images(images)
    assert list(found.faults) == [path] and words in found.faults[path] and found.images == 160
    done = here("data", "check", str(images))
    assert done.returncode == 2 and f"{path} " in done.stdout and "1 of its images" in done.stderr


def test_odd_images_are_fine_and_circles_of_folders_end(images: Path, here: Any) -> None:
    for name, image in GOOD.items():
        image.save(images / "train" / "3" / name)
    (images / "train" / "3" / "again").symlink_to(images)
    found = check_images(images)
    assert not found.faults and found.images == 160 + len(GOOD)
    done = here("data", "check", str(images))
    assert done.returncode == 0 and "165 images are fine: " in done.stdout


@pytest.mark.parametrize("folder", ["nowhere", "empty"])
def test_no_images_are_no_success(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=folder):
        check_images(tmp_path / folder)


def settings_of(images: Path, **changes: Any) -> Any:
    settings = config("simclr", str(images / "train"), max_epochs=1)
    settings.backbone = {"name": "timm/test_resnet"}
    settings.data.update(changes)
    return settings


@pytest.mark.parametrize("workers", [0, 1])
def test_a_training_names_the_image(images: Path, workers: int) -> None:
    for number in range(BATCH):  # the last, incomplete batch of an epoch is dropped
        truncated(images / "train" / "3" / f"bad{number}.png")
    with pytest.raises(ConfigError) as error:
        pretrain(settings_of(images, num_workers=workers))
    said = one_line(error.value)
    assert said.startswith(f"{images / 'train' / '3'}/bad") and "image file is truncated" in said


def test_checking_beforehand_trains_nothing(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = images / "train" / "3" / "0000.png"
    truncated(path)
    with pytest.raises(ConfigError, match=rf"data\.train_path: {path} cannot be read"):
        pretrain(settings_of(images, check=True))
    os.unlink(path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["images"]


def test_odd_images_train(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, image in GOOD.items():
        image.save(images / "train" / "3" / name)
    pretrain(settings_of(images, check=True))
