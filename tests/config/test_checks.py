"""Configs and runs that cannot work are refused before anything is built."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from support import config, train_steps

from solo_dimreg.config.composing import compose, evaluation_settings, fit_to_machine
from solo_dimreg.config.data import check_data
from solo_dimreg.config.folders import find_config_folder
from solo_dimreg.config.loading import load_settings
from solo_dimreg.config.steps import check_steps
from solo_dimreg.errors import ConfigError
from solo_dimreg.solo_learn import Host
from solo_dimreg.training.evaluation import evaluation_transforms, extract_splits, linear_accuracy
from solo_dimreg.training.pretraining import pretrain


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("optimizer.lr", "abc", ["must be a number"]),
        ("optimizer.batch_size", 0, [">= 1"]),
        ("optimizer.name", "adam2", ["Did you mean 'adam'"]),
        ("optimizer.weight_decay", -1, [">= 0"]),
        ("scheduler.name", "warmup_cosin", ["Did you mean 'warmup_cosine'"]),
        ("scheduler.warmup_epochs", "abc", ["a number"]),
        ("max_epochs", 1.5, ["a whole number"]),
        ("seed", "abc", ["a whole number"]),
        ("data.dataset", "cifar11", ["Did you mean 'cifar10'"]),
        ("data.num_workers", "abc", ["a whole number"]),
        ("devices", "abc", ["number >= 1"]),
        ("method", "linear", ["simclr"]),
        ("checkpoint", "here", ["mapping"]),
        ("augmentations", [{"crop_size": 32}], ["num_crops: is missing"]),
    ],
)
def test_wrong_settings_name_key_and_value(
    host: Host, few_digits: Path, key: str, value: object, words: list[str]
) -> None:
    settings = config("simclr", str(few_digits / "train"))
    OmegaConf.update(settings, key, value, force_add=True)
    with pytest.raises(ConfigError) as error:
        load_settings(host, settings)
    message = str(error.value)
    assert message.startswith(key) and all(word in message for word in words), message


def test_empty_blocks_are_fine(host: Host, few_digits: Path) -> None:
    settings = config("simclr", str(few_digits / "train"), wandb=None, checkpoint=None, momentum=None)
    load_settings(host, settings)
    assert settings.checkpoint == {}


@pytest.mark.parametrize("crops", [1, 3])
def test_solo_learns_methods_need_two_large_crops(host: Host, few_digits: Path, crops: int) -> None:
    settings = config("simclr", str(few_digits / "train"))
    settings.augmentations[0].num_crops = crops
    with pytest.raises(ConfigError, match=rf"augmentations.*{crops} large crops.*2"):
        load_settings(host, settings)


def test_a_misspelt_block_is_not_ignored(host: Host, few_digits: Path) -> None:
    with pytest.raises(ConfigError, match=r"regularizer: .*Did you mean 'regularizers'"):
        load_settings(host, config("simclr", str(few_digits / "train"), regularizer={"ldreg": {}}))


def test_train_and_val_must_have_the_same_classes(few_digits: Path, tmp_path: Path) -> None:
    val = shutil.copytree(few_digits / "val", tmp_path / "val")
    shutil.rmtree(val / "3")
    settings = config("simclr", str(few_digits / "train"))
    settings.data.val_path = str(val)
    with pytest.raises(ConfigError, match=r"data.val_path.*same class folders.* 3"):
        check_data(settings, need_val=True)


def test_a_file_is_no_image_folder(few_digits: Path) -> None:
    settings = config("simclr", __file__)
    with pytest.raises(ConfigError, match=r"data.train_path.*is a file"):
        check_data(settings, need_val=False)


def test_the_batch_is_counted_per_process(few_digits: Path) -> None:
    settings = config("simclr", str(few_digits / "train"), devices=8)
    check_steps(settings, 8 * 16)
    with pytest.raises(ConfigError, match=r"optimizer.batch_size: 16 is more than the 15"):
        check_steps(settings, 8 * 16 - 1)


def test_a_data_folder_does_not_shadow_our_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits" / "train").mkdir(parents=True)
    assert find_config_folder("pretrain", "digits").parent.name == "pretrain"
    (tmp_path / "digits" / "mine.yaml").write_text("a: 1\n")
    assert find_config_folder("pretrain", "digits") == tmp_path / "digits"


def test_malformed_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("a: [1\nb: }")
    with pytest.raises(ConfigError, match="broken"):
        compose("pretrain", str(tmp_path), "broken", [])


@pytest.fixture(scope="module")
def run_folder(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without a val_path."""
    out = tmp_path_factory.mktemp("run")
    checkpoint = {"enabled": True, "dir": str(out)}
    settings = config("simclr", str(few_digits / "train"), checkpoint=checkpoint)
    fit_to_machine(settings)
    folder = pretrain(settings)
    assert folder is not None
    return folder


def test_a_run_is_never_scored_on_data_it_did_not_name(host: Host, run_folder: Path) -> None:
    run = host.read_run(run_folder)
    linear = evaluation_settings(compose("linear", "digits", "linear", []), run)
    assert linear.data.val_path is None
    with pytest.raises(ConfigError, match=r"data.val_path: is missing"):
        linear_accuracy(host, run, linear)
    with pytest.raises(ConfigError, match=r"data.val_path: is missing"):
        extract_splits(host, run)


def test_linear_takes_fewer_than_five_classes(
    host: Host, run_folder: Path, few_digits: Path, tmp_path: Path
) -> None:
    for split in ("train", "val"):
        for digit in "01":
            shutil.copytree(few_digits / split / digit, tmp_path / split / digit)
    overrides = [f"data.{split}_path={tmp_path / split}" for split in ("train", "val")]
    overrides += ["max_epochs=1", "optimizer.batch_size=8"]
    run = host.read_run(run_folder)
    linear = evaluation_settings(compose("linear", "digits", "linear", overrides), run, overrides)
    fit_to_machine(linear)
    result = linear_accuracy(host, run, linear)
    assert 0 <= result["acc1"] <= 100 and result["classes"] == 2
    assert "acc5" not in result  # of two classes it is 100, whatever the probe has learned
    assert (result["train_images"], result["val_images"], result["steps"]) == (24, 8, 3)


class Bomb:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize("damage", ["arguments", "list", "empty", "checkpoint", "pickle", "other weights"])
def test_damaged_runs_are_refused_and_nothing_is_executed(
    host: Host, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(run_folder, tmp_path / "run")
    arguments, (checkpoint,) = folder / "args.json", folder.glob("*.ckpt")
    if damage == "arguments":
        arguments.write_text(arguments.read_text()[:100])
    elif damage == "list":
        arguments.write_text("[]")
    elif damage == "empty":
        arguments.write_text('{"method": "simclr"}')
    elif damage == "checkpoint":
        checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    elif damage == "pickle":
        checkpoint.write_bytes(pickle.dumps({"state_dict": Bomb()}))
    else:
        torch.save({"state_dict": {"conv1.weight": torch.zeros(3)}}, checkpoint)
    with pytest.raises(ConfigError) as error:
        host.read_run(folder)
    assert len(str(error.value).splitlines()) == 1 and "run" in str(error.value)
    assert not Path("exploded").exists()


def test_normalization_is_that_of_the_training(host: Host, few_digits: Path) -> None:
    settings = config("simclr", str(few_digits / "train"))
    settings.augmentations[0].crop_size = 224
    native = host.evaluation_transforms("custom")[1].transforms[-1]
    assert evaluation_transforms(host, settings)[1].transforms[-1].mean == native.mean
    settings.augmentations[0].mean, settings.augmentations[0].std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    assert list(evaluation_transforms(host, settings)[1].transforms[-1].mean) == [0.1, 0.2, 0.3]
    settings.data.dataset, settings.augmentations[0].crop_size = "cifar10", 64
    cifar = host.evaluation_transforms("cifar10")[1].transforms[-1]
    assert evaluation_transforms(host, settings)[1].transforms[-1].mean == cifar.mean


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_warmup_counts_steps_or_epochs_on_both_solo_learns(
    host: Host, few_digits: Path, interval: str
) -> None:
    """A learning rate that rises from the start of the warm-up to the full one, linearly."""
    schedule = {"name": "warmup_cosine", "warmup_epochs": 1, "warmup_start_lr": 0.0, "interval": interval}
    settings = config("simclr", str(few_digits / "train"), scheduler=schedule)
    arguments = host.pretraining_arguments(settings)
    method = host.build_method(arguments)
    rates = []
    step = type(method).training_step

    def record(self, batch, batch_idx):
        rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        return step(self, batch, batch_idx)

    type(method).training_step, original = record, step
    try:
        train_steps(host, method, steps=5)
    finally:
        type(method).training_step = original
    full = 0.1 * 16 / 256
    expected = [full * i / 4 for i in range(5)] if interval == "step" else [0.0] * 5
    assert rates == pytest.approx(expected)


def test_resumed_settings_must_be_the_same(
    few_digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def run(weight: float | None, **changes: Any) -> Path | None:
        settings = config(
            "simclr",
            str(few_digits / "train"),
            checkpoint={"enabled": True, "dir": str(tmp_path)},
            auto_resume={"enabled": True},
            regularizers=weight and {"ldreg": {"weight": weight, "k": 8, "warmup_epochs": 0}},
            **changes,
        )
        fit_to_machine(settings)
        return pretrain(settings)

    first = run(0.1)
    assert run(0.2) != first
    assert "Not resuming from" in capsys.readouterr().out
    # A block that was there is as much a difference as one that was not.
    run(0.2, projector={"normalization": "dbn"})
    assert "Not resuming from" in capsys.readouterr().out
    run(0.2)
    assert "Resuming from" in capsys.readouterr().out  # the second, which the third does not hide
    run(None)
    assert "Not resuming from" in capsys.readouterr().out
    assert json.loads((first / "args.json").read_text())["name"] == "simclr-test"
