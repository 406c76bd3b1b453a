"""Every command that a training prints works for its run, as it stands or with the folder it asks for."""

from __future__ import annotations

import json
import pickle
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support import config, small

from solo_dimreg.config.composing import compose
from solo_dimreg.config.values import plain
from solo_dimreg.reports.comparison import write_report
from solo_dimreg.solo_learn import Host
from solo_dimreg.solo_learn.next_steps import LABELLED, next_steps
from solo_dimreg.training.pretraining import pretrain

FAST = {"linear": ("max_epochs=1",), "diagnose": ("--batch-size", "64"), "knn": ()}


@pytest.fixture(scope="module")
def trained(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with labels and validation images."""
    settings = small(few_digits)
    settings.data.val_path = str(few_digits / "val")
    settings.checkpoint = {"enabled": True, "dir": str(tmp_path_factory.mktemp("trained"))}
    folder = pretrain(settings)
    assert folder is not None
    return folder


@pytest.fixture(scope="module")
def without_labels(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a folder of images."""
    flat = tmp_path_factory.mktemp("flat")
    for number, image in enumerate(sorted((few_digits / "train").rglob("*.png"))[::2]):
        shutil.copy(image, flat / f"{number}.png")
    settings = small(few_digits)
    settings.data.update(train_path=str(flat), no_labels=True)
    settings.checkpoint = {"enabled": True, "dir": str(tmp_path_factory.mktemp("trained"))}
    folder = pretrain(settings)
    assert folder is not None
    return folder


def changed(run: Path, out: Path, **data: object) -> Path:
    """The run with other words about its data in ``args.json``."""
    folder = shutil.copytree(run, out / "run", ignore=shutil.ignore_patterns("linear-*", "knn-*"))
    arguments = json.loads((folder / "args.json").read_text())
    arguments.get("config", arguments)["data"].update(data)
    (folder / "args.json").write_text(json.dumps(arguments))
    return folder


def works(here: Callable, lines: list[str], given: Path) -> list[str]:
    """Runs the commands; returns their names."""
    names = []
    for line in lines:
        words = shlex.split(line.replace(LABELLED, str(given)), comments=True)
        if not words or words[0] != "solo-dimreg":
            continue
        done = here(*words[1:], *FAST[words[1]])
        assert done.returncode == 0, (line, done.stderr)
        names.append(words[1])
    return names


def test_with_labels_and_validation_images(host: Host, here: Callable, trained: Path) -> None:
    lines = next_steps(host, trained)
    assert LABELLED not in "".join(lines)
    # 120 images are fewer than a batch of the linear config.
    assert lines[0] == f"solo-dimreg linear {trained} optimizer.batch_size=16"
    assert works(here, lines, trained) == ["linear", "knn", "diagnose"]
    for kind in ("linear", "knn"):
        (file,) = trained.glob(f"{kind}-*.json")
        kept = json.loads(file.read_text())
        assert 0 <= kept["acc1"] <= kept["acc5"] <= 100 and kept["classes"] == 10
        assert (kept["train_images"], kept["val_images"], kept["pretrained_epochs"]) == (120, 40, 1)
    page = write_report(trained.parent, trained.parent / "report").read_text()
    assert "linear" in page and "k-NN" in page and f"{kept['acc1']:.2f}" in page
    if host.generation == "current":  # the published one has no such script
        assert lines[3].startswith(
            "# solo-learn's main_linear.py is left out: it evaluates custom images at 224 px"
        )
        assert len(lines) == 4 and "near chance for this training at 32 px" in lines[3]


def test_without_validation_images(
    host: Host, here: Callable, trained: Path, few_digits: Path, tmp_path: Path
) -> None:
    run = changed(trained, tmp_path, val_path=None)
    lines = next_steps(host, run)
    assert [line for line in lines if line.startswith("#")] == [lines[1]] and "data.val_path" in lines[1]
    assert LABELLED not in lines[0] and all(LABELLED in line for line in lines[1:])
    assert works(here, lines, few_digits / "val") == ["diagnose", "linear", "knn"]


def test_without_labels(host: Host, here: Callable, without_labels: Path, few_digits: Path) -> None:
    """Another test shows that ``diagnose`` works there."""
    first, *lines = next_steps(host, without_labels)
    assert first == f"solo-dimreg diagnose {without_labels}" and "data.no_labels" in lines[0]
    # 120 images are fewer than a batch of the linear config, which the commands do not change.
    assert not any("batch_size" in line for line in lines)
    assert works(here, lines, few_digits) == ["linear", "knn"]
    # A batch size that the command line gives is not lowered.
    chosen = here(*shlex.split(lines[1].replace(LABELLED, str(few_digits)))[1:], "optimizer.batch_size=128")
    assert chosen.returncode == 2 and "optimizer.batch_size: 128 is more than the 120" in chosen.stderr


def write_cifar10(root: Path) -> None:
    """A few images of noise in the files of CIFAR10's Python version."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        batch = {"data": generator.integers(0, 256, (20, 3072), dtype=np.uint8), "labels": [*range(10)] * 2}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(i) for i in range(10)]}))


def test_cifar10_has_its_test_images_in_the_same_folder(
    host: Host, here: Callable, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar10(tmp_path / "data")
    # torchvision compares the real files with their sums.
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    run = changed(trained, tmp_path, dataset="cifar10", train_path=str(tmp_path / "data"), val_path=None)
    lines = next_steps(host, run)
    assert LABELLED not in "".join(lines)
    assert works(here, lines[:2], tmp_path) == ["linear", "knn"]
    (found,) = run.glob("linear-*.json")
    assert json.loads(found.read_text())["val_images"] == 20


@pytest.mark.parametrize("size", [96, 32])
def test_stl10_is_evaluated_by_a_config_that_exists(host: Host, tmp_path: Path, size: int) -> None:
    """The command of ``main_linear.py`` composes, where its resolution is that of the training."""
    checkpoint = tmp_path / "simclr-ab12cd34-ep=3.ckpt"
    checkpoint.touch()
    settings = config("simclr", "data")
    settings.data.update(dataset="stl10")
    settings.augmentations[0].crop_size = size
    settings.backbone = {"name": "timm/resnet18", "kwargs": {"channels": [8, 8, 8, 8]}}
    (tmp_path / "args.json").write_text(json.dumps(plain(settings)))
    *ours, last = next_steps(host, tmp_path)
    if host.generation == "published":
        assert last.startswith("solo-dimreg diagnose")
        return
    assert [line.split()[1] for line in ours] == ["linear", "knn", "diagnose"]
    if size == 32:
        assert last.startswith("#") and "at 96 px" in last
        return
    words = shlex.split(last)
    assert words[:2] == ["python", "main_linear.py"]
    linear = compose("linear", words[3], words[5], words[6:])
    assert linear.pretrained_feature_extractor == str(checkpoint)
    assert plain(linear.backbone) == plain(settings.backbone)
    assert (linear.data.train_path, linear.data.val_path, linear.data.dataset) == ("data", "data", "stl10")


def test_other_normalization_is_named(host: Host, tmp_path: Path) -> None:
    if host.generation == "published":
        return
    (tmp_path / "simclr-ep=3.ckpt").touch()
    settings = config("simclr", "data")
    settings.data.val_path = "val"
    settings.augmentations[0].update(crop_size=224, mean=[0.5] * 3, std=[0.5] * 3)
    (tmp_path / "args.json").write_text(json.dumps(plain(settings)))
    assert "does not read augmentations.mean" in next_steps(host, tmp_path)[-1]
