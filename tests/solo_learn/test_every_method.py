"""A training step of every regularizer on every method that solo-learn has."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from support import BATCH, METHODS, PROJECTED, PROJECTOR, RandomViews, build_small, most_slow, train_steps
from torch import Tensor

from solo_dimreg.errors import ConfigError
from solo_dimreg.solo_learn import Host
from solo_dimreg.solo_learn.registration import generation

pytestmark = pytest.mark.usefixtures("cholesky")
# Those whose loss takes small crops too; the others unpack exactly two views, or leave the small ones out.
MULTICROP = {"current": ["byol", "simclr", "supcon", "swav"], "published": ["byol", "simclr"]}[
    generation() or "current"
]
WITHOUT_PROJECTOR = ["mae"]
REGULARIZERS: dict[str, dict[str, Any]] = {
    "ldreg": {"weight": 1.0, "k": 8, "warmup_epochs": 0},
    "decorrelation": {"weight": 1.0},
    "effective_rank": {"weight": 1.0},
}
PLACES = ["features", "embeddings"]
CASES = most_slow(
    [(name, False) for name in METHODS] + [(name, True) for name in MULTICROP],
    keep=[("byol", False), ("simclr", True)],
)


def step(host: Host, model: Any, multicrop: bool) -> tuple[Tensor, dict[str, float]]:
    """The gradient of the backbone in one step of training, and what was logged."""
    logged = train_steps(host, model, steps=1, sizes=(32, 32, 16, 16) if multicrop else (32, 32))
    # The trainer clears the gradients before the next step, and there was none.
    gradients = [p.grad.flatten() for p in host.backbone(model).parameters() if p.grad is not None]
    return torch.cat(gradients), logged


@pytest.fixture(scope="module")
def without_block() -> dict[tuple[str, bool], Tensor]:
    """The gradients of the methods themselves, computed once."""
    return {}


def test_the_list_of_methods_is_complete(host: Host) -> None:
    assert len(METHODS) == {"current": 19, "published": 14}[host.generation]
    assert set(METHODS) <= set(host.methods)
    if host.generation == "current":
        plain = {}
        for name in METHODS:
            bases = host.methods[name].__mro__[1:]
            plain[name] = vars(next(kind for kind in bases if kind.__module__.startswith("solo.methods")))
        assert [name for name in METHODS if "multicrop_forward" in plain[name]] == MULTICROP


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize(("name", "multicrop"), CASES)
def test_every_regularizer_changes_the_gradient(
    host: Host,
    few_digits: Path,
    without_block: dict[tuple[str, bool], Tensor],
    name: str,
    multicrop: bool,
    regularizer: str,
    where: str,
) -> None:
    block = {regularizer: {**REGULARIZERS[regularizer], "where": where}}
    if where == "embeddings" and name in WITHOUT_PROJECTOR:
        with pytest.raises(ConfigError, match=f"{regularizer}.where: 'embeddings'.*no projector"):
            build_small(few_digits, name, multicrop, regularizers=block)
        return
    if (name, multicrop) not in without_block:
        without_block[name, multicrop], _ = step(host, build_small(few_digits, name, multicrop), multicrop)
    expected = without_block[name, multicrop]
    model = build_small(few_digits, name, multicrop, regularizers=block)
    seen: list[Any] = []
    model.regularizers[regularizer].register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    gradient, logged = step(host, model, multicrop)
    assert gradient.shape == expected.shape
    assert torch.isfinite(gradient).all()
    assert (gradient - expected).norm() > 1e-3 * expected.norm()
    assert logged[f"train_{regularizer}_epoch"] != 0
    views, momentum_views = seen
    width = model.features_dim if where == "features" else PROJECTED.get(name, PROJECTOR["proj_output_dim"])
    one_sided = host.generation == "published" and name == "ressl" and where == "embeddings"
    count = 1 if one_sided else 2  # that ReSSL projects one view only, and the momentum copy the other
    assert [view.shape for view in views] == [(BATCH, width)] * count
    momentum = issubclass(host.methods[name], host.momentum_method)
    assert [view.shape for view in momentum_views] == [(BATCH, width)] * (count if momentum else 0)
    assert not any(view.requires_grad for view in momentum_views)


@pytest.mark.parametrize(("name", "multicrop"), CASES)
def test_a_weight_of_zero_changes_nothing(
    host: Host, few_digits: Path, without_block: dict[tuple[str, bool], Tensor], name: str, multicrop: bool
) -> None:
    """The step is the same in every run: a gradient that differs differs by the regularizer."""
    if (name, multicrop) not in without_block:
        without_block[name, multicrop], _ = step(host, build_small(few_digits, name, multicrop), multicrop)
    block = {key: {**options, "weight": 0, "where": "features"} for key, options in REGULARIZERS.items()}
    gradient, logged = step(host, build_small(few_digits, name, multicrop, regularizers=block), multicrop)
    assert torch.equal(gradient, without_block[name, multicrop])
    assert not any(f"train_{regularizer}_epoch" in logged for regularizer in REGULARIZERS)


@pytest.mark.parametrize("name", ["simclr", "byol"])
def test_embeddings_are_those_of_the_projector(host: Host, few_digits: Path, name: str) -> None:
    block = {"decorrelation": {"weight": 1.0, "where": "embeddings"}}
    model = build_small(few_digits, name, multicrop=False, regularizers=block)
    twin = copy.deepcopy(model)
    seen: list[Any] = []
    model.regularizers["decorrelation"].register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    step(host, model, multicrop=False)
    views, momentum_views = seen
    images = RandomViews(BATCH, (32, 32)).views
    encoders = [(host.backbone(twin), twin.projector, views)]
    if name == "byol":
        encoder = twin.momentum_backbone if host.generation == "current" else twin.momentum_encoder
        encoders.append((encoder, twin.momentum_projector, momentum_views))
    for backbone, projector, embeddings in encoders:
        for image, embedding in zip(images, embeddings, strict=True):
            torch.testing.assert_close(projector(backbone(image)), embedding, rtol=1e-4, atol=1e-5)
