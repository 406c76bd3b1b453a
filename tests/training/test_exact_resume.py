"""Four epochs in one go equal two, an end in the third, and a resumption: to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from support import METHODS, most_slow, small

from solo_dimreg.files import checkpoint_epoch
from solo_dimreg.reports.run_files import read_curves
from solo_dimreg.solo_learn import register
from solo_dimreg.training.pretraining import pretrain


class Killed(Exception):
    """In place of a kill -9: what is not in the checkpoint is lost."""


def settings_of(few_digits: Path, folder: str, name: str, **changes: Any) -> DictConfig:
    checkpoint = {"enabled": True, "dir": folder, "frequency": 1, "keep_prev": False}
    settings = small(few_digits, name, checkpoint=checkpoint, max_epochs=4, **changes)
    settings.data.val_path = str(few_digits / "val")
    settings.monitor = {"metrics": ["effective_rank"]}
    settings.augmentations[0].color_jitter = {
        "prob": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1,
    }  # fmt: skip
    settings.scheduler = {"name": "warmup_cosine", "warmup_epochs": 1}
    if name == "swav":
        settings.method_kwargs.epoch_queue_starts = 1  # or the queue would not be used
    return settings


def last(folder: str) -> Path:
    return max(Path(folder).rglob("*.ckpt"), key=checkpoint_epoch)


NAMES = [*METHODS, "adadim", "directclr", "lejepa", "shuffled_dbn"]


@pytest.mark.parametrize("name", most_slow(NAMES, ("byol",)))
def test_a_resumed_run_is_the_same(
    few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cholesky: None, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    terms = {"ldreg": {"weight": 0.1, "warmup_epochs": 1}, "effective_rank": {"weight": 0.01}}
    if name not in ("mae", "directclr"):
        terms |= {"decorrelation": {"weight": 0.01}, "sigreg": {"weight": 0.01, "num_slices": 64}}
    block = {"regularizers": terms}
    pretrain(settings_of(few_digits, "whole", name, **block))

    kind = register().methods[name]
    step = kind.training_step

    def until_the_third(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.current_epoch == 2 and batch_idx == 2:
            raise Killed
        return step(self, batch, batch_idx)

    monkeypatch.setattr(kind, "training_step", until_the_third)
    with pytest.raises(Killed):
        pretrain(settings_of(few_digits, "parts", name, **block))
    monkeypatch.setattr(kind, "training_step", step)
    settings = settings_of(few_digits, "parts", name, **block)
    settings.resume_from_checkpoint = str(last("parts"))
    assert checkpoint_epoch(last("parts")) == 1
    torch.rand(7)
    pretrain(settings)

    whole, parts = (torch.load(last(folder), weights_only=True) for folder in ("whole", "parts"))
    assert whole["global_step"] == parts["global_step"] and whole["epoch"] == parts["epoch"] == 3
    for key, value in whole["state_dict"].items():
        assert torch.equal(value, parts["state_dict"][key]), key
    register().read_run(last("parts"))  # what was resumed can be evaluated
    curves = [
        read_curves(sorted(file.parent for file in Path(folder).rglob("args.json")))
        for folder in ("whole", "parts")
    ]
    assert curves[0] == curves[1] and sorted(curves[0]["effective_rank"]) == [0, 1, 2, 3]
