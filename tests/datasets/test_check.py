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

from solo_dimreg.datasets.check import CIRCLE, check_images
from solo_dimreg.errors import ConfigError, one_line
from solo_dimreg.running.data import check_data
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


def test_odd_images_are_fine(images: Path, here: Any) -> None:
    for name, image in GOOD.items():
        image.save(images / "train" / "3" / name)
    found = check_images(images)
    assert not found.faults and found.images == 160 + len(GOOD)
    done = here("data", "check", str(images))
    assert done.returncode == 0 and "165 images are fine: " in done.stdout


def test_a_circle_of_folders_is_named_and_another_link_is_followed(
    images: Path, tmp_path: Path, here: Any
) -> None:
    (images / "train" / "3").rename(tmp_path / "elsewhere")
    (images / "train" / "3").symlink_to(tmp_path / "elsewhere")
    check_data(settings_of(images), need_val=False)
    circle = images / "train" / "3" / "again"
    circle.symlink_to(images)
    assert check_images(images).faults == {circle: CIRCLE} and check_images(images).images == 160
    done = here("data", "check", str(images))
    assert done.returncode == 2 and f"{circle} is a link that leads back" in done.stdout
    with pytest.raises(ConfigError, match=rf"data\.train_path: {circle} is a link that leads back"):
        pretrain(settings_of(images))


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


@pytest.mark.parametrize("workers", [0, 2])
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


@pytest.fixture
def unlabelled(images: Path) -> Path:
    """The training images in one folder, without classes."""
    folder = images / "unlabelled"
    folder.mkdir()
    for path in (images / "train").rglob("*.png"):
        shutil.copy(path, folder / f"{path.parent.name}-{path.name}")
    return folder


def without_labels(folder: Path, **changes: Any) -> Any:
    settings = settings_of(folder.parent, no_labels=True, train_path=str(folder), **changes)
    settings.data.val_path = str(folder.parent / "val")  # which nothing reads then
    return settings


@pytest.mark.parametrize("workers", [0, 2])
def test_images_without_labels_train_or_are_named(
    unlabelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.chdir(tmp_path)
    pretrain(without_labels(unlabelled, num_workers=workers, check=True))
    for number in range(BATCH):
        truncated(unlabelled / f"bad{number}.png")
    with pytest.raises(ConfigError) as error:
        pretrain(without_labels(unlabelled, num_workers=workers))
    said = one_line(error.value)
    assert said.startswith(f"{unlabelled}/bad") and "image file is truncated" in said


@pytest.mark.parametrize("odd", ["notes.txt", "folder", "folder.png"])
def test_without_labels_all_must_be_images(unlabelled: Path, odd: str) -> None:
    path = unlabelled / odd
    path.mkdir() if "folder" in odd else path.touch()
    with pytest.raises(ConfigError, match=rf"data\.train_path: '{path}' is no image"):
        pretrain(without_labels(unlabelled))
    with pytest.raises(ConfigError, match="is a file; it must be a folder of images"):
        pretrain(without_labels(unlabelled / "0-0000.png"))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_single_class_trains(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        for folder in sorted((images / split).iterdir())[1:]:
            shutil.rmtree(folder)
    for path in list((images / "train" / "0").iterdir()):  # a whole batch
        shutil.copy(path, path.with_name(f"again-{path.name}"))
    pretrain(settings_of(images, num_workers=workers, val_path=str(images / "val")))


@pytest.mark.parametrize(("split", "missing"), [("train", "3"), ("val", "3")])
def test_classes_of_one_split_alone_are_named(images: Path, split: str, missing: str) -> None:
    shutil.rmtree(images / split / missing)
    settings = settings_of(images, val_path=str(images / "val"))
    with pytest.raises(
        ConfigError, match=rf"data\.val_path: '{images}/val'.* only one of them has {missing}\."
    ):
        pretrain(settings)
