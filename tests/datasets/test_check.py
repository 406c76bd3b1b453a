"""Bad images: found beforehand, and named by a training, from worker processes too."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import BATCH, config
from torchvision.transforms.functional import to_tensor

from solo_dimreg.config.data import check_data, check_image_folder, check_reader
from solo_dimreg.datasets.check import CIRCLE, HIDDEN, check_images, evenly_spread
from solo_dimreg.diagnosis.sources.images import Images
from solo_dimreg.diagnosis.sources.opening import open_source
from solo_dimreg.errors import ConfigError, one_line
from solo_dimreg.solo_learn import Host
from solo_dimreg.training.evaluation import labelled_images
from solo_dimreg.training.pretraining import pretrain


def truncated(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated.png": (truncated, "truncated"),
    "empty.png": (lambda path: path.touch(), "is empty or damaged"),
    "text.png": (lambda path: path.write_text("no image"), "does not know its format"),
    "gone.png": (lambda path: path.symlink_to("nowhere.png"), "link to a file that does not exist"),
    "circle.png": (lambda path: path.symlink_to(path.name), "cannot be read"),
    "bomb.png": (lambda path: Image.new("1", (12_000, 12_000)).save(path), "decompression bomb"),
    "nan.tif": (lambda path: Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(path), "not finite"),
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
    assert (
        done.returncode == 2
        and f"{path} " in done.stdout
        and ": 1 image cannot be used, as named above" in done.stderr
    )


def test_odd_images_are_fine(images: Path, here: Any) -> None:
    for name, image in GOOD.items():
        image.save(images / "train" / "3" / name)
    found = check_images(images)
    assert not found.faults and found.images == 160 + len(GOOD)
    done = here("data", "check", str(images))
    assert done.returncode == 0 and "165 images are fine: " in done.stdout


def test_deep_transparent_and_blank_images_are_counted(images: Path, here: Any) -> None:
    folder = images / "train" / "3"
    deep, alpha, white = folder / "deep.png", folder / "alpha.png", folder / "white.png"
    Image.fromarray(np.arange(81, dtype=np.uint16).reshape(9, 9)).save(deep)
    drawing = Image.new("RGBA", (9, 9))
    drawing.putpixel((4, 4), (0, 0, 0, 255))
    drawing.save(alpha)
    Image.new("RGBA", (9, 9), (255, 255, 255, 99)).save(white)
    Image.new("RGBA", (9, 9), (9, 8, 7, 255)).save(folder / "opaque.png")
    found = check_images(images)
    assert not found.faults and found.images == 164
    assert (found.deep, found.transparent) == ([deep], [alpha, white])
    assert found.blank == [folder / "opaque.png", white]
    done = here("data", "check", str(images))
    assert done.returncode == 0 and done.stdout.splitlines()[1:] == [
        f"Of these 1 of more than 8 bits a channel, scaled to 8 bits by its own range (such as {deep}).",
        f"Of these 2 transparent in parts, composed onto white (such as {alpha}).",
        f"Of these 2 read as a single colour (such as {folder / 'opaque.png'}).",
    ]


@pytest.mark.parametrize("place", ["train", "train/3", "val"])
def test_hidden_folders_of_images_are_no_classes(images: Path, place: str, here: Any) -> None:
    hidden = images / place / ".ipynb_checkpoints"
    shutil.copytree(images / "train" / "3", hidden)
    done = here("data", "check", str(images))
    assert done.returncode == 2 and f"{hidden} is a hidden folder" in done.stdout
    assert ": 1 folder cannot be used" in done.stderr
    settings = settings_of(images, val_path=str(images / "val"))
    key = "val_path" if place == "val" else "train_path"
    with pytest.raises(ConfigError, match=rf"data\.{key}: {hidden} is a hidden folder.*must be removed"):
        check_data(settings, need_val=False)
    settings.data.val_path = None  # a class too many would then be trained without a word
    for each in hidden.iterdir():
        each.unlink()
    assert (check_images(images).faults == {hidden: HIDDEN}) == (place != "train/3")


def test_a_root_of_splits_is_no_folder_of_classes(images: Path, tmp_path: Path, here: Any) -> None:
    words = rf"'{images}' holds the splits 'train' and 'val', which would be read as classes; "
    words += rf"give '{images}/train' as data\.train_path and '{images}/val' as data\.val_path\."
    for key in ("train_path", "val_path"):
        changes = {"train_path": str(images / "train"), key: str(images)}
        with pytest.raises(ConfigError, match=rf"data\.{key}: {words}"):
            check_data(settings_of(images, **changes), need_val=False)
    assert not check_images(images).faults  # data check looks at all splits at once
    shutil.move(images / "train", tmp_path / "train")
    shutil.move(images / "val", tmp_path / "images" / "Validation")
    with pytest.raises(
        ConfigError, match=rf"the splits 'Validation', .*give '{images}/Validation' as data\.val_path\."
    ):
        check_data(settings_of(images, train_path=str(images)), need_val=False)


def test_classes_that_are_called_as_splits_are_classes(images: Path) -> None:
    vehicles = images / "vehicles"
    shutil.copytree(images / "train" / "3", vehicles / "train")
    shutil.copytree(images / "train" / "4", vehicles / "test")
    assert check_image_folder("data.train_path", vehicles) == ["test", "train"]


def test_what_dali_would_misread_is_refused_by_a_sample(images: Path) -> None:
    settings = settings_of(images, format="dali")
    (images / "train" / "3" / "opaque.png").unlink(missing_ok=True)
    Image.new("RGBA", (9, 9), (9, 8, 7, 255)).save(images / "train" / "3" / "opaque.png")
    check_reader(settings)
    for path in sorted((images / "train" / "3").iterdir()):
        Image.fromarray(np.arange(81, dtype=np.uint16).reshape(9, 9) * 700).save(path)
    words = r"data\.train_path: .*/train/3/\S+ has more than 8 bits a channel, which DALI.*image_folder"
    with pytest.raises(ConfigError, match=words):
        check_reader(settings)
    for path in sorted((images / "train" / "3").iterdir()):
        Image.new("LA", (9, 9), (0, 99)).save(path)
    with pytest.raises(ConfigError, match=r"has its drawing in alpha, which DALI"):
        check_reader(settings)
    check_reader(settings_of(images))


@pytest.mark.parametrize(("count", "looked_at"), [(0, 0), (1, 1), (64, 64), (65, 64), (1000, 64)])
def test_a_sample_is_spread_over_all(count: int, looked_at: int) -> None:
    paths = [Path(str(number)) for number in range(count)]
    sample = evenly_spread(paths)
    assert len(sample) == looked_at and sample[:1] == paths[:1]
    assert not count or count - int(str(sample[-1])) <= -(-count // 64)


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
def alike(images: Path) -> tuple[Path, Path]:
    """Images of 8 bits with values from 0 to 255, and the same ones ten times as bright in 16 bits."""
    plain, deep = images / "plain", images / "deep"
    for path in [*(images / "train").rglob("*.png"), *(images / "val").rglob("*.png")]:
        values = np.array(Image.open(path).convert("L"))
        values[0, :2] = 0, 255
        for folder, written in ((plain, values), (deep, values.astype(np.uint16) * 10)):
            target = folder / path.relative_to(images)
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(written).save(target)
    return plain, deep


def test_deep_images_are_trained_and_evaluated_as_those_of_8_bits(
    host: Host, alike: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    weights, pixels = [], []
    for folder in alike:
        settings = settings_of(folder, val_path=str(folder / "val"))
        settings.checkpoint = {"enabled": True, "dir": str(folder / "run")}
        run = pretrain(settings)
        (checkpoint,) = run.glob("*.ckpt")
        weights.append(torch.load(checkpoint, weights_only=True)["state_dict"])
        for dataset in labelled_images(host, settings, to_tensor, to_tensor):
            pixels.append(torch.stack([dataset[number][0] for number in range(len(dataset))]))
        said = capfd.readouterr().err
        assert ("64 of more than 8 bits a channel, scaled to 8 bits" in said) == (folder.name == "deep")
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert torch.equal(pixels[0], pixels[2]) and torch.equal(pixels[1], pixels[3])


def test_deep_images_are_diagnosed_as_those_of_8_bits(alike: tuple[Path, Path]) -> None:
    found = []
    for folder in (*alike, *(each / "train" / "3" for each in alike)):
        source = open_source("pixels", Images(path=folder, size=8))
        found.append(torch.cat([features for features, *_ in source.batches(None)]))
    assert (
        torch.equal(found[0], found[1]) and torch.equal(found[2], found[3]) and len(found[0]) > len(found[2])
    )


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
    with pytest.raises(ConfigError, match=rf"data\.train_path: '{path}' is not an image"):
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
