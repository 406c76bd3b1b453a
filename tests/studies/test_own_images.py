"""``compare``: the study that rows and images stand for, its plan, and the answer in the end."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from solo_dimreg.config import composing
from solo_dimreg.config.folders import config_root
from solo_dimreg.diagnosis.python import diagnose
from solo_dimreg.errors import ConfigError
from solo_dimreg.studies.engine import _described, configs_of, run_study
from solo_dimreg.studies.own_images import Plan, plan_of, study_of

TINY = ["backbone.name=timm/test_resnet", "data.num_workers=0", "optimizer.batch_size=32"]


@pytest.fixture
def photos(tmp_path: Path, few_digits: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The images of a user: a folder per class, without a split."""
    monkeypatch.chdir(tmp_path)
    for folder in sorted((few_digits / "train").iterdir())[:4]:
        shutil.copytree(folder, tmp_path / "photos" / folder.name, symlinks=False)
    return Path("photos")


def test_rows_are_fitted_to_the_images(photos: Path) -> None:
    rows = ["byol", "ldreg_byol", "byol +regularizers.decorrelation.weight=0.01"]
    study = study_of(rows, "photos", Path("out"), length=(None, 30))
    names = ["byol", "ldreg_byol", "byol-regularizers.decorrelation.weight-0.01"]
    assert list(study.rows) == names and [row.title for row in study.rows.values()] == rows
    configs = [configs_of(study, name, 5, Path("out"))[0] for name in names]
    plain, ldreg, decorrelation = configs
    assert ldreg.method == "ldreg_byol" and decorrelation.regularizers.decorrelation.weight == 0.01
    assert {config.augmentations[0].crop_size for config in configs} == {32}
    assert {config.data.train_path for config in configs} == {
        str(Path("datasets/photos-split/train").resolve())
    }
    plan = plan_of(study, [5, 6], Path("out"))
    images = len(list(photos.rglob("*.png")))
    assert plan.train + plan.val == images and plan.val == pytest.approx(images / 5, abs=4)
    per_epoch = plan.train // plain.optimizer.batch_size
    assert plan.rows[0] == ["byol", str(-(-30 // per_epoch)), str(-(-30 // per_epoch) * per_epoch), "0 of 2"]
    assert plan.steps == 6 * int(plan.rows[0][2]) and plan.runs == 6
    assert decorrelation.scheduler.warmup_epochs <= plain.max_epochs / 2


def test_steps_are_counted_with_the_overrides(photos: Path) -> None:
    rows, everywhere = ["byol", "byol optimizer.batch_size=8"], {"overrides": ["optimizer.batch_size=4"]}
    for changes, batches in (({}, (None, 8)), (everywhere, (4, 4))):
        study = study_of(rows, "photos", Path("out"), (None, 30), changes)
        plan = plan_of(study, [5], Path("out"))
        for name, (_, epochs, steps, _), given in zip(study.rows, plan.rows, batches, strict=True):
            batch = configs_of(study, name, 5, Path("out"))[0].optimizer.batch_size
            assert given in (None, batch)
            per_epoch = plan.train // batch
            assert int(steps) == int(epochs) * per_epoch and 30 <= int(steps) < 30 + per_epoch


def test_a_row_with_its_folder_has_the_data_of_that_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = plan_of(study_of(["digits/byol", "digits/simclr"], "", Path("out")), [5, 6], Path("out"))
    steps = 12 * (1_437 // 128)  # epochs of the embedded digits, which were not there
    assert (plan.train, plan.val) == (1_437, 360)
    assert plan.rows == [[f"digits/{name}", "12", str(steps), "0 of 2"] for name in ("byol", "simclr")]


def test_images_that_are_not_there_are_named_before_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = study_of(["imagenet100/ldreg_byol"], "", Path("out"))
    with pytest.raises(ConfigError, match=r"^data.train_path: 'datasets/imagenet-100/train' does not exist"):
        plan_of(study, [5], Path("out"))


def test_a_term_that_never_takes_part_is_named(photos: Path) -> None:
    study = study_of(["byol", "byol +regularizers.ldreg.weight=1"], "photos", Path("out"), (3, None))
    (line,) = plan_of(study, [5], Path("out")).idle
    assert line.startswith("byol +regularizers.ldreg.weight=1: regularizers.ldreg.warmup_epochs: 10 is not")


def test_of_a_file_of_the_readers_the_data_alone_changes(photos: Path) -> None:
    shutil.copytree(config_root() / "pretrain" / "digits", "mine")
    study = study_of(["mine/simclr.yaml optimizer.lr=0.5"], "photos", Path("out"))
    settings, _ = configs_of(study, "simclr-optimizer.lr-0.5", 5, Path("out"))
    assert settings.optimizer.lr == 0.5 and settings.augmentations[0].crop_size == 24
    assert settings.data.val_path == str(Path("datasets/photos-split/val").resolve())


def test_a_study_file_may_name_the_images(photos: Path) -> None:
    Path("study.yaml").write_text("data: photos\nrows:\n  a: byol\n  b: a optimizer.lr=0.5\nbaseline: b\n")
    study = study_of(["study.yaml"], "", Path("out"), length=(3, None))
    a, b = (configs_of(study, name, 5, Path("out"))[0] for name in "ab")
    assert (a.max_epochs, b.max_epochs, b.optimizer.lr) == (3, 3, 0.5) and study.baseline == "b"


def test_embedded_data_uses_the_configs_made_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    study = study_of(["byol", "simclr"], "digits", Path("out"))
    assert study.folder == "digits" and Path("datasets/digits/train").is_dir()


@pytest.mark.parametrize(
    ("rows", "data", "message"),
    [
        (["byl"], "photos", "Unknown config or method 'byl'. Did you mean 'byol'"),
        (["byol", "byol"], "photos", "'byol' stands there twice"),
        (["byol"], "fotos", "'fotos' is not a folder"),
        (["mine.yaml"], "photos", "mine.yaml: cannot be read"),
        (["byol", "mine.yaml"], "photos", "there is no file 'mine.yaml'"),
    ],
)
def test_wrong_rows_are_refused(photos: Path, rows: list[str], data: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        study_of(rows, data, Path("out"))
    assert message in str(error.value)


def test_rows_without_data_name_a_folder(photos: Path) -> None:
    study = study_of(["byol"], "", Path("out"))
    with pytest.raises(ConfigError, match="byol: 'byol' has no folder; it must be FOLDER/NAME"):
        configs_of(study, "byol", 5, Path("out"))


@pytest.mark.slow
def test_without_labels_the_dimensionality_is_compared(photos: Path) -> None:
    flat = Path("flat")
    flat.mkdir()
    for i, file in enumerate(sorted(photos.rglob("*.png"))):
        shutil.copy(file, flat / f"{i}.png")
    study = study_of(["simclr"], "flat", Path("out"), length=(1, None))
    (run,) = run_study(study.changed(seeds=1, overrides=TINY), Path("out"))["runs"]
    assert "linear_acc1" not in run and run["effective_rank"] > 1 and run["verdict"]["kind"]
    # Alignment from 0 to 4, LiDAR from 1 to the number of images less one, uniformity at most 0.
    assert 0 < run["alignment"] < 4 and 1 <= run["lidar"] < 100 and run["uniformity"] < 0
    assert run["rankme"] > 1 and run["alpha_req"] is not None


def test_the_verdict_of_a_run_is_that_of_the_diagnosis() -> None:
    generator = torch.Generator().manual_seed(0)
    for rank in (3, 30):
        features = torch.randn(300, rank, generator=generator) @ torch.randn(rank, 64, generator=generator)
        given, whole = _described(features, None)["verdict"], diagnose(features).verdict
        assert (given["kind"], given["reason"], given["ways"]) == (whole.kind, whole.reason, [*whole.ways])


@pytest.mark.slow
def test_a_comparison_ends_with_its_answer(photos: Path, here) -> None:
    settings = [text for each in TINY for text in ("--set", each)]
    zero = "simclr +regularizers.ldreg.weight=0 +regularizers.ldreg.warmup_epochs=0"
    command = ("compare", "simclr", zero, "--data", str(photos.resolve()))
    options = ("--epochs", "1", "--seeds", "2", "--jobs", "1", "--linear", "max_epochs=1", *settings)
    done = here(*command, *options, "--out", "out", "--dry-run")
    assert torch.get_num_threads() == 1  # as before, though it is timed with those of a run
    assert done.returncode == 0, done.stderr
    assert "4 runs on" in done.stdout and "steps are left" in done.stdout and "2 seeds" in done.stdout
    done = here(*command, *options, "--out", "out")
    assert done.returncode == 0, done.stderr
    found = json.loads(next(Path(".").rglob("compare.json")).read_text())
    row = found["rows"][1]
    # A term of weight 0 changes nothing.
    assert row["word"] == "not shown" and row["differences"]["linear_acc1"]["mean"] == 0


def test_a_study_of_real_data_says_what_it_will_take(here, tmp_path: Path) -> None:
    """Without its images it says what belongs where; with them it gives the time of the whole schedule."""
    small = ["optimizer.batch_size=32", "augmentations.0.crop_size=32", "data.num_workers=0"]
    options = [f"--set={each}" for each in (*small, "backbone.name=timm/test_resnet")]
    command = ["compare", "imagenet100", "--dry-run", "--jobs", "1", "--out", "out", *options]
    done = here(*command)
    assert done.returncode == 2 and "a folder per class, into datasets/imagenet100/train/" in done.stderr
    rng = np.random.default_rng(0)
    for place in ("train/a", "train/b", "val/a", "val/b"):
        folder = tmp_path / "datasets/imagenet100" / place
        folder.mkdir(parents=True)
        for i in range(80 if "train" in place else 2):
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    composing._say_once.cache_clear()  # the process of the tests has said it before
    done = here(*command)
    # 400 epochs of 160 images in batches of 32, seven rows.
    assert done.returncode == 0 and "7 runs on 160 training images (4 validation images)" in done.stdout
    assert re.search(r"^simclr +400 +2000 +0 of 1$", done.stdout, re.MULTILINE) and ", seed 5:" in done.stdout
    assert done.stderr.count("No GPU here") == (not torch.cuda.is_available())
    took = r"^14000 steps are left\. One of the first row takes \S+ s .*: about \d+ (s|min|h) for all"
    assert re.search(took, done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("seconds", "batches", "asked"),
    [
        *((0.1, 100, [2, 12]), (10.0, 100, [2, 8]), (90.0, 100, [2, 4])),
        *((0.1, 5, [2, 5]), (0.1, 2, [2]), (0.1, 1, [1])),
    ],
)
def test_steps_are_timed_without_the_start_and_fewer_if_they_are_long(
    seconds: float, batches: int, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start takes no time where it is not told apart, with too few batches."""
    start, found = 0.0 if len(asked) == 1 else seconds / 10, []

    def training(plan: Plan, steps: int) -> float:
        found.append(steps)
        return start + steps * seconds

    monkeypatch.setattr(Plan, "_seconds", training)
    first = OmegaConf.create({"optimizer": {"batch_size": 32}})
    plan = Plan([], 32 * batches, 0, 0, 1, 0, first, [])
    assert plan.seconds_per_step(torch.get_num_threads()) == pytest.approx(seconds) and found == asked
