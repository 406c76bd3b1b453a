"""Weights are read of solo-learn's checkpoints, and of no others, without running anything in them."""

from __future__ import annotations

import os
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from solo_dimreg.errors import ConfigError
from solo_dimreg.solo_learn.checkpoints import read_checkpoint


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("run",)


def saved(path: Path, **more: Any) -> Path:
    weights = OrderedDict(weight=torch.arange(6.0).view(2, 3), steps=torch.tensor(3))
    torch.save({"state_dict": weights, "epoch": 2, **more}, path)
    return path


def fixed_rate() -> Any:
    """As solo-learn leaves it for the methods whose predictor has a fixed learning rate."""
    from solo.methods.base import static_lr
    from torch.optim.lr_scheduler import MultiStepLR

    scheduler = MultiStepLR(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1), [1])
    fixed = {"param_group_indexes": [0], "lrs_to_replace": [0.1]}
    return partial(static_lr, get_lr=scheduler.get_lr, **fixed)


def test_the_weights_are_read(tmp_path: Path) -> None:
    found = read_checkpoint(saved(tmp_path / "plain.ckpt"))
    assert torch.equal(found["state_dict"]["weight"], torch.arange(6.0).view(2, 3)) and found["epoch"] == 2


def test_the_objects_of_a_scheduler_are_refused_with_what_to_do(tmp_path: Path) -> None:
    path = saved(tmp_path / "simsiam.ckpt", lr_schedulers=[{"get_lr": fixed_rate()}])
    with pytest.raises(ConfigError, match=r"could run code .* without 'lr_schedulers'") as error:
        read_checkpoint(path)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("evil", [Evil(), partial(os.mkdir, "run"), [partial(Evil)]])
def test_other_objects_are_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evil: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="could run code and is not loaded"):
        read_checkpoint(saved(tmp_path / "evil.ckpt", more=evil))
    assert not Path("run").exists()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "cut.ckpt")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ConfigError, match=r"cut\.ckpt: is not an intact checkpoint"):
        read_checkpoint(path)
    path.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"cut\.ckpt: is not an intact checkpoint \(\w+\)"):
        read_checkpoint(path)
