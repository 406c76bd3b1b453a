"""Resuming from what is damaged or evil: named, passed over, never run."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from support import config

from solo_dimreg.errors import ConfigError
from solo_dimreg.files import checkpoint_epoch
from solo_dimreg.training.pretraining import pretrain


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("run",)


def settings_of(few_digits: Path, epochs: int, **changes: Any) -> DictConfig:
    checkpoint = {"enabled": True, "dir": "trained", "frequency": 1, "keep_prev": True}
    settings = config(
        "simclr", str(few_digits / "train"), checkpoint=checkpoint, max_epochs=epochs, **changes
    )
    settings.backbone = {"name": "timm/test_resnet"}
    return settings


@pytest.fixture
def run(few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two epochs of four, a checkpoint each, the last one cut off."""
    monkeypatch.chdir(tmp_path)
    settings = settings_of(few_digits, 2)
    pretrain(settings)
    found = sorted(Path("trained").rglob("*.ckpt"), key=checkpoint_epoch)
    found[1].write_bytes(found[1].read_bytes()[:5000])
    return found


def test_a_truncated_checkpoint_is_refused_with_the_one_before(few_digits: Path, run: list[Path]) -> None:
    settings = settings_of(few_digits, 4, resume_from_checkpoint=str(run[1]))
    with pytest.raises(
        ConfigError, match=r"resume_from_checkpoint: .*ep=1\.ckpt: is not an intact .*ep=0\.ckpt\.$"
    ):
        pretrain(settings)
    settings.resume_from_checkpoint = str(run[0])
    assert pretrain(settings) is not None


def test_auto_resume_passes_over_it(few_digits: Path, run: list[Path], capfd: pytest.CaptureFixture) -> None:
    settings = settings_of(few_digits, 2, auto_resume={"enabled": True, "max_hours": 1})
    pretrain(settings)
    said = capfd.readouterr().out
    assert f"Not resuming from {run[1]}: is not an intact" in said and f"Resuming from {run[0]}" in said


@pytest.mark.parametrize("backwards", [False, True])
def test_auto_resume_takes_the_latest_of_those_that_are_kept(
    few_digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
    backwards: bool,
) -> None:
    """solo-learn takes whichever its file system lists first."""
    monkeypatch.chdir(tmp_path)
    pretrain(settings_of(few_digits, 3))
    walk = os.walk

    def ordered(*args: Any, **kwargs: Any) -> Any:
        return ((root, dirs, sorted(files, reverse=backwards)) for root, dirs, files in walk(*args, **kwargs))

    monkeypatch.setattr(os, "walk", ordered)
    pretrain(settings_of(few_digits, 3, auto_resume={"enabled": True, "max_hours": 1}))
    (latest,) = Path("trained").rglob("*ep=2.ckpt")
    assert f"Resuming from {latest}" in capfd.readouterr().out


def test_auto_resume_looks_into_every_folder(
    few_digits: Path, run: list[Path], capfd: pytest.CaptureFixture
) -> None:
    """One later checkpoint has another seed, one folder holds nothing whole, one file is cut off."""
    folder = run[0].parent
    for number, name in enumerate(("seed", "parts", "arguments")):
        other = folder.with_name(name)
        shutil.copytree(folder, other)
        arguments = json.loads((other / "args.json").read_text())
        if name == "seed":
            arguments.get("config", arguments)["seed"] = arguments["seed"] = 77
        (other / "args.json").write_text(json.dumps(arguments)[: 50 if name == "arguments" else None])
        if name == "parts":
            for path in other.glob("*.ckpt"):
                path.write_bytes(path.read_bytes()[: 3000 + number])
    pretrain(settings_of(few_digits, 2, auto_resume={"enabled": True, "max_hours": 1}))
    said = capfd.readouterr().out
    assert f"Not resuming from {folder.with_name('arguments')}: it cannot be read" in said
    assert f"Not resuming from {folder.with_name('parts')}" in said and f"Resuming from {run[0]}" in said


def test_an_evil_checkpoint_is_not_run(few_digits: Path, run: list[Path]) -> None:
    content = torch.load(run[0], weights_only=True)
    torch.save({**content, "more": Evil()}, run[0])
    with pytest.raises(ConfigError, match="could run code and is not loaded"):
        pretrain(settings_of(few_digits, 4, resume_from_checkpoint=str(run[0])))
    assert not Path("run").exists()
