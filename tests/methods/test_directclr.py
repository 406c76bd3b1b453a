from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support import build, config, train_steps

from solo_dimreg.errors import ConfigError
from solo_dimreg.solo_learn import Host


def info_nce(z1: np.ndarray, z2: np.ndarray, temperature: float) -> float:
    """InfoNCE in float64, written out: cross-view pairs, both directions."""
    z1, z2 = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (z1, z2))
    logits = z1 @ z2.T / temperature
    losses = [np.log(np.exp(row).sum()) - row[i] for rows in (logits, logits.T) for i, row in enumerate(rows)]
    return float(np.mean(losses))


def method(few_digits: Path, **kwargs):
    return build(config("directclr", str(few_digits / "train"), method_kwargs=kwargs))


def views() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(8, 512, generator=generator) for _ in range(2)]


@pytest.mark.parametrize(("kwargs", "width"), [({"dim": 60}, 60), ({"mode": "baseline"}, 512)])
def test_loss_is_info_nce_on_the_first_entries(few_digits: Path, kwargs: dict, width: int) -> None:
    model = method(few_digits, temperature=0.2, **kwargs)
    features = views()
    embeddings = [model.projector(view) for view in features]
    expected = info_nce(*(view[:, :width].double().numpy() for view in features), 0.2)
    assert float(model.loss(features, embeddings)["loss"]) == pytest.approx(expected, rel=1e-5)


def test_group_sums_the_losses_of_disjoint_groups(few_digits: Path) -> None:
    model = method(few_digits, mode="group", num_groups=4, temperature=0.2)
    features = views()
    torch.manual_seed(3)
    order = torch.randperm(512).numpy().reshape(4, 128)
    torch.manual_seed(3)
    loss = model.loss(features, features)["loss"]
    first, second = (view.double().numpy() for view in features)
    expected = sum(info_nce(first[:, group], second[:, group], 0.2) for group in order)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("mode", "layers"), [("single", 1), ("simclr", 5)])
def test_projector_modes_train_their_projector(host: Host, few_digits: Path, mode: str, layers: int) -> None:
    model = method(few_digits, mode=mode, proj_output_dim=24)
    modules = model.projector if mode == "simclr" else [model.projector]
    assert len(modules) == layers
    before = [parameter.clone() for parameter in model.projector.parameters()]
    logged = train_steps(host, model)
    assert all(not torch.equal(a, b) for a, b in zip(before, model.projector.parameters(), strict=True))
    assert model(torch.randn(4, 3, 32, 32))["z"].shape == (4, 24)
    assert "train_nce_loss_epoch" in logged


@pytest.mark.parametrize("mode", ["directclr", "baseline", "group"])
def test_modes_without_a_projector_return_z(host: Host, few_digits: Path, mode: str) -> None:
    model = method(few_digits, mode=mode, dim=60)
    train_steps(host, model, steps=1)
    assert model(torch.randn(4, 3, 32, 32))["z"].shape == (4, 60 if mode == "directclr" else 512)


def test_only_the_first_entries_get_a_gradient_from_the_loss(few_digits: Path) -> None:
    model = method(few_digits, dim=60)
    features = [view.requires_grad_() for view in views()]
    model.loss(features, [model.projector(view) for view in features])["loss"].backward()
    assert features[0].grad[:, :60].abs().sum() > 0
    assert features[0].grad[:, 60:].abs().sum() == 0


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"dim": 513}, ["method_kwargs.dim", "513", "512"]),
        ({"mode": "single", "proj_output_dim": 0}, ["method_kwargs: proj_output_dim", ">= 1, got 0"]),
        ({"mode": "group", "num_groups": 2.0}, ["method_kwargs: num_groups", "got 2.0"]),
        ({"mode": "group", "num_groups": True}, ["method_kwargs: num_groups", "got True"]),
        ({"mode": "directclip"}, ["method_kwargs.mode", "Did you mean 'directclr'"]),
        ({"temperature": 0}, ["method_kwargs: temperature", "> 0"]),
        ({"mode": "group", "num_groups": 7}, ["method_kwargs.num_groups", "7", "512"]),
        ({"dimension": 3}, ["method_kwargs.dimension", "Valid: dim"]),
    ],
)
def test_wrong_options_are_refused(few_digits: Path, kwargs: dict, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        method(few_digits, **kwargs)
    assert all(word in str(error.value) for word in words), str(error.value)
