"""Weights are read of solo-learn's checkpoints, and of no others, without running anything in them."""

from __future__ import annotations

import os
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch

from solo_dimreg.errors import ConfigError
from solo_dimreg.solo_learn.checkpoints import read_weights


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


def test_weights_beside_the_objects_of_a_scheduler(tmp_path: Path) -> None:
    assert read_weights(saved(tmp_path / "plain.ckpt")).keys() == {"weight", "steps"}
    path = saved(tmp_path / "simsiam.ckpt", lr_schedulers=[{"get_lr": fixed_rate()}])
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(path, weights_only=True)
    found = read_weights(path)
    assert torch.equal(found["weight"], torch.arange(6.0).view(2, 3)) and int(found["steps"]) == 3


@pytest.mark.parametrize("evil", [Evil(), partial(os.mkdir, "run"), [partial(Evil)]])
def test_other_objects_are_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evil: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="could run code and is not loaded"):
        read_weights(saved(tmp_path / "evil.ckpt", more=evil))
    assert not Path("run").exists()


def test_functions_of_torch_are_not_changed(tmp_path: Path) -> None:
    """A pickle can set attributes of what it has on its stack."""

    path = saved(tmp_path / "changing.ckpt", lr_schedulers=[{"get_lr": fixed_rate()}])
    content = (
        b"\x80\x02}(U\nstate_dict}U\x01xctorch._utils\n_rebuild_parameter\n"
        b"N}U\x0c__defaults__U\x04evils\x86bcfunctools\npartial\n0u."
    )
    with ZipFile(path) as archive, ZipFile(tmp_path / "evil.ckpt", "w") as other:
        for name in archive.namelist():
            other.writestr(name, content if name.endswith("data.pkl") else archive.read(name))
    with pytest.raises(ConfigError, match="could run code and is not loaded"):
        read_weights(tmp_path / "evil.ckpt")
    assert torch._utils._rebuild_parameter.__defaults__ is None


def test_a_dotted_name_leads_nowhere(tmp_path: Path) -> None:
    """Under protocol 4 a name may lead from a module of solo-learn's to anything that it imports."""
    path = saved(tmp_path / "plain.ckpt")
    content = b"\x80\x04}(\x8c\nstate_dict}\x8c\x04more\x8c\x17solo.utils.checkpointer\x8c\tos.system\x93u."
    with ZipFile(path) as archive, ZipFile(tmp_path / "evil.ckpt", "w") as other:
        for name in archive.namelist():
            other.writestr(name, content if name.endswith("data.pkl") else archive.read(name))
    with pytest.raises(ConfigError, match="could run code and is not loaded"):
        read_weights(tmp_path / "evil.ckpt")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "cut.ckpt")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ConfigError, match=r"cut\.ckpt: is not an intact checkpoint"):
        read_weights(path)
    path.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"cut\.ckpt: is not an intact checkpoint \(\w+\)"):
        read_weights(path)
