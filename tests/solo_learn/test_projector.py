"""The ``projector:`` block on every method that has a projector, on both solo-learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import METHODS, build, build_small, config, most_slow, train_steps
from torch import nn

from solo_dimreg import DecorrelatedBatchNorm, ShuffledDBN
from solo_dimreg.errors import ConfigError
from solo_dimreg.functional import off_diagonal_correlation
from solo_dimreg.solo_learn import Host
from solo_dimreg.solo_learn.hooks import find_projector
from solo_dimreg.training.pretraining import pretrain

pytestmark = pytest.mark.usefixtures("cholesky")
WITH_PROJECTOR = [name for name in METHODS if name != "mae"]


@pytest.mark.parametrize(
    "name", most_slow([*WITH_PROJECTOR, "directclr", "adadim", "ldreg_byol"], keep=["simclr", "ldreg_byol"])
)
def test_every_projector_ends_with_the_layer(host: Host, few_digits: Path, name: str) -> None:
    changes: dict[str, Any] = {"projector": {"normalization": "shuffled_dbn", "affine": True}}
    if name == "directclr":
        changes["method_kwargs"] = {"dim": 20}
    if name == "adadim":
        changes["method_kwargs"] = {"proj_hidden_dim": 32, "proj_output_dim": 16}
    model = build_small(few_digits, name, False, **changes)
    for prefix in ("", "momentum_"):
        projector = find_projector(model, prefix)
        assert projector is not None or prefix == "momentum_"
        if projector is None:
            continue
        layer = projector[-1]
        assert type(layer) is ShuffledDBN and layer.automatic
        assert layer.weight.requires_grad is (prefix == "")
    logged = train_steps(host, model, steps=2)
    # DeepCluster v2 has no clusters, and a loss of NaN, before the first epoch is over.
    finite = {key: value for key, value in logged.items() if "deepcluster" not in key}
    assert all(torch.isfinite(torch.tensor(value)) for value in finite.values())
    projector = find_projector(model)
    layer = projector[-1]
    assert layer.num_groups < layer.num_features and layer.running_mean.abs().sum() > 0
    # Its scale is trained as the rest of the projector is.
    trained = {id(p) for group in model.learnable_params for p in group["params"]}
    assert id(layer.weight) in trained


def test_embeddings_are_whitened(few_digits: Path) -> None:
    block = {"normalization": "dbn", "num_groups": 1, "eps": 0, "track_running_stats": False}
    model = build(config("simclr", str(few_digits / "train"), projector=block))
    projector = find_projector(model)
    z = projector(torch.randn(64, model.features_dim, generator=torch.Generator().manual_seed(0)))
    assert z.shape[1] < 64 and off_diagonal_correlation(z.detach()) < 1e-3


def test_without_the_block_nothing_is_appended(few_digits: Path) -> None:
    plain = build(config("byol", str(few_digits / "train")))
    none = build(config("byol", str(few_digits / "train"), projector={"normalization": "none"}))
    assert not any(isinstance(module, DecorrelatedBatchNorm) for module in plain.modules())
    assert isinstance(find_projector(none)[-1], nn.Identity)
    assert plain.state_dict().keys() == none.state_dict().keys()
    assert all(torch.equal(value, none.state_dict()[key]) for key, value in plain.state_dict().items())


def test_a_run_is_read_back_with_its_groups(host: Host, few_digits: Path, tmp_path: Path) -> None:
    settings = config("byol", str(few_digits / "train"), projector={"normalization": "dbn"})
    settings.backbone = {"name": "timm/test_resnet"}
    settings.checkpoint = {"enabled": True, "dir": str(tmp_path), "frequency": 1, "keep_prev": False}
    run = host.read_run(pretrain(settings))
    layer = find_projector(run.method)[-1]
    assert layer.num_groups == 2  # 16 axes, batches of 16
    assert run.method(torch.randn(4, 3, 32, 32))["z"].shape == (4, 16)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"normalisation": "dbn"}, ["projector.normalisation", "Did you mean 'normalization'"]),
        ({"normalization": "dbm"}, ["projector.normalization: Unknown normalization", "Did you mean 'dbn'"]),
        ({"num_groups": 3}, ["projector.num_groups: num_groups", "divide the 16 axes, got 3"]),
        ({"eps": -1}, ["projector.eps: eps", ">= 0"]),
        ({"affine": "yes"}, ["projector.affine: affine", "'yes'"]),
        ("dbn", ["projector: 'dbn' is not a mapping"]),
        ({"num_groups": 1, "normalization": "dbn"}, ["projector.num_groups", "batch of 16 cannot whiten"]),
    ],
)
def test_wrong_blocks_are_refused_before_training(few_digits: Path, block: Any, words: list[str]) -> None:
    settings = config("simclr", str(few_digits / "train"), projector=block)
    settings.backbone = {"name": "timm/test_resnet"}
    with pytest.raises(ConfigError) as error:
        pretrain(settings)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_method_without_a_projector_is_refused(host: Host, few_digits: Path) -> None:
    if "mae" not in host.methods:
        assert host.generation == "published"
        return
    with pytest.raises(ConfigError, match="has no projector; leave the block out"):
        build(config("mae", str(few_digits / "train"), projector={"normalization": "dbn"}))


def test_a_misspelt_block_is_refused(few_digits: Path) -> None:
    settings = config("simclr", str(few_digits / "train"), projectors={"normalization": "dbn"})
    with pytest.raises(ConfigError, match="projectors: unknown key"):
        pretrain(settings)
