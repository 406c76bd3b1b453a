"""The method of feature decorrelation, on both solo-learns."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import BATCH, build, config, train_steps
from torch import Tensor

from solo_dimreg.errors import ConfigError
from solo_dimreg.solo_learn import Host
from solo_dimreg.training.pretraining import pretrain

NORMALIZATIONS = ["none", "bn", "dbn", "shuffled_dbn"]
SMALL = {"proj_hidden_dim": 32, "proj_output_dim": 16, "num_groups": 4}


def settings(few_digits: Path, **kwargs: Any) -> Any:
    made = config("shuffled_dbn", str(few_digits / "train"), method_kwargs={**SMALL, **kwargs})
    made.backbone = {"name": "timm/test_resnet"}
    return made


def method(few_digits: Path, **kwargs: Any) -> Any:
    return build(settings(few_digits, **kwargs))


def features(model: Any, samples: int = 256) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(samples, model.features_dim, generator=generator)


def test_loss_is_the_squared_distance_of_the_views(few_digits: Path) -> None:
    model = method(few_digits)
    z1, z2 = (features(model, 12)[:, i : i + 6] for i in (0, 6))
    out = model.loss([], [z1, z2])
    a, b = z1.double().numpy(), z2.double().numpy()
    expected = np.mean([np.sum((a[i] - b[i]) ** 2) for i in range(12)])
    assert float(out["loss"]) == pytest.approx(expected, rel=1e-6)
    assert float(out["distance"]) == float(out["loss"])
    correlation = np.abs(np.corrcoef(a, rowvar=False))[~np.eye(6, dtype=bool)].mean()
    assert float(out["z_correlation"]) == pytest.approx(correlation, rel=1e-5)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_every_normalization_trains(host: Host, few_digits: Path, normalization: str) -> None:
    model = method(few_digits, normalization=normalization)
    before = copy.deepcopy(model.state_dict())
    logged = train_steps(host, model, steps=2)
    assert {"train_distance_step", "train_distance_epoch"} <= logged.keys()
    assert {"train_z_correlation_step", "train_z_correlation_epoch"} <= logged.keys()
    assert all(np.isfinite(value) for value in logged.values())
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert any("projector" in name for name in changed)
    assert model.eval()(torch.randn(4, 3, 32, 32))["z"].shape == (4, 16)


def test_none_leaves_the_projector_as_it_is(few_digits: Path) -> None:
    model = method(few_digits, normalization="none")
    x = features(model)
    torch.testing.assert_close(model.projector(x), model.projector[:4](x), rtol=0, atol=0)


@pytest.mark.parametrize("normalization", ["bn", "dbn", "shuffled_dbn"])
def test_what_the_normalization_makes_of_the_covariance(few_digits: Path, normalization: str) -> None:
    # Without an eps, of which the small covariance of a new projector would keep a trace.
    model = method(few_digits, normalization=normalization, eps=1e-12)
    z = model.projector(features(model))
    covariance = torch.cov(z.T, correction=0)
    identity = torch.eye(16)
    torch.testing.assert_close(covariance.diag(), torch.ones(16), rtol=0, atol=1e-4)
    if normalization == "dbn":
        for group in torch.arange(16).view(4, 4):
            block = covariance[group][:, group]
            torch.testing.assert_close(block, torch.eye(4), rtol=0, atol=1e-4)
    if normalization == "shuffled_dbn":
        # Four axes are in a group with three others each, drawn anew: 24 pairs are decorrelated at a time.
        pairs = {tuple(pair.tolist()) for pair in (covariance.abs() < 1e-4).triu(1).nonzero()}
        again = torch.cov(model.projector(features(model)).T, correction=0)
        others = {tuple(pair.tolist()) for pair in (again.abs() < 1e-4).triu(1).nonzero()}
        assert len(pairs) >= 24 and len(others) >= 24 and pairs != others
    assert (covariance - identity).abs().max() > 1e-2


def test_one_group_is_whitened_altogether(few_digits: Path) -> None:
    model = method(few_digits, num_groups=1, eps=1e-12)
    covariance = torch.cov(model.projector(features(model)).T, correction=0)
    torch.testing.assert_close(covariance, torch.eye(16), rtol=0, atol=1e-4)


def test_evaluation_uses_running_statistics_and_does_not_shuffle(few_digits: Path) -> None:
    model = method(few_digits)
    x = features(model)
    model.projector(x)
    model.eval()
    z = model.projector(x)
    assert torch.equal(z, model.projector(x))
    torch.testing.assert_close(z[:3], model.projector(x[:3]))


def test_running_statistics_are_saved_and_resumed(host: Host, few_digits: Path) -> None:
    first, second = method(few_digits), method(few_digits, affine=False)
    train_steps(host, first, steps=2)
    state = copy.deepcopy(first.state_dict())
    assert state["projector.4.running_covariance"].shape == (4, 4, 4)
    second.load_state_dict(state)
    x = torch.randn(4, 3, 32, 32)
    assert torch.equal(first.eval()(x)["z"], second.eval()(x)["z"])


@pytest.mark.parametrize("normalization", ["bn", "dbn", "shuffled_dbn"])
def test_affine_learns_a_scale_and_a_shift(host: Host, few_digits: Path, normalization: str) -> None:
    model = method(few_digits, normalization=normalization, affine=True)
    train_steps(host, model, steps=1)
    assert not torch.equal(model.projector[4].weight, torch.ones(16))


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"num_groups": 5}, ["num_groups", "5", "16"]),
        ({"normalization": "shufled_dbn"}, ["Unknown normalization", "Did you mean 'shuffled_dbn'"]),
        ({"normalization": None}, ["Unknown normalization", "'None'", "bn, dbn, none, shuffled_dbn"]),
        ({"eps": -1}, ["eps", "-1", ">= 0"]),
        ({"momentum": 1.5, "normalization": "bn"}, ["momentum", "1.5", "[0, 1]"]),
        ({"proj_output_dim": 0}, ["proj_output_dim", "0", ">= 1"]),
        ({"proj_hidden_dim": -1}, ["proj_hidden_dim", "-1", ">= 1"]),
        ({"groups": 4}, ["method_kwargs.groups", "Did you mean 'num_groups'", "Valid: affine"]),
        # BATCH samples leave a covariance of this many axes singular.
        ({"num_groups": 1}, ["method_kwargs.num_groups", "groups of 16", "batch of 16", "batch_size"]),
    ],
)
def test_wrong_options_are_refused_before_training(
    few_digits: Path, tmp_path: Path, kwargs: dict[str, Any], words: list[str]
) -> None:
    made = settings(few_digits, **kwargs)
    made.checkpoint = {"enabled": True, "dir": str(tmp_path), "frequency": 1, "keep_prev": False}
    with pytest.raises(ConfigError) as error:
        pretrain(made)
    assert all(word in str(error.value) for word in ("method_kwargs", *words)), str(error.value)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_groups_just_smaller_than_the_batch_train(host: Host, few_digits: Path) -> None:
    assert BATCH == 16
    logged = train_steps(host, method(few_digits, proj_output_dim=15, num_groups=1), steps=1)
    assert np.isfinite(logged["train_distance_epoch"])
