"""The method AdaDim, on both solo-learns."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from support import BATCH, PROJECTOR, build, config, train_steps
from torch import Tensor

from solo_dimreg import AdaDim, LeJEPA
from solo_dimreg.errors import ConfigError
from solo_dimreg.functional import effective_rank
from solo_dimreg.solo_learn import Host
from solo_dimreg.training.pretraining import pretrain

METRICS = [
    *("alpha", "beta", "H_R", "H_Z", "matrix_entropy_R", "matrix_entropy_Z", "I_RZ"),
    *("loss_sample", "loss_dimension", "adadim_loss"),
]


def method(few_digits: Path, **kwargs: Any) -> Any:
    settings = config("adadim", str(few_digits / "train"), method_kwargs={**PROJECTOR, **kwargs})
    settings.backbone = {"name": "timm/test_resnet"}
    return build(settings)


def views(width: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(0, -1, width, dtype=torch.float64)
    return list((torch.randn(2, 8, width, generator=generator, dtype=torch.float64) * scale).unbind())


def loss_and_gradient(loss: Tensor, embeddings: list[Tensor]) -> tuple[Tensor, Tensor]:
    return loss.detach(), torch.stack(torch.autograd.grad(loss, embeddings))


@pytest.mark.parametrize(("name", "loss"), [("adadim", AdaDim), ("lejepa", LeJEPA)])
def test_the_docstring_names_the_options_that_there_are(host: Host, name: str, loss: type) -> None:
    text = host.methods[name].__doc__.partition(f"``solo_dimreg.{loss.__name__}``:")[2].partition(".")[0]
    assert [option.strip() for option in text.split(",")] == list(inspect.signature(loss).parameters)


@pytest.mark.parametrize("alpha", [0, 0.0, 1, 1.0])
def test_a_fixed_alpha_is_solo_learns_own_loss(
    host: Host, few_digits: Path, monkeypatch: pytest.MonkeyPatch, alpha: float
) -> None:
    from solo.losses.simclr import simclr_loss_func
    from solo.losses.vicreg import vicreg_loss_func

    model = method(few_digits, alpha=alpha, gamma=0, temperature=0.2, sim=20.0, var=15.0, cov=2.0)
    monkeypatch.setattr(type(model), "progress", 0.5)
    features, embeddings = views(12), [view.requires_grad_() for view in views(6, seed=1)]
    if alpha == 1:
        if host.generation == "current":
            given = {"z": torch.cat(embeddings), "indexes": torch.arange(8).repeat(2)}
        else:
            given = {"z1": embeddings[0], "z2": embeddings[1]}
        expected = simclr_loss_func(**given, temperature=0.2)
    else:
        expected = vicreg_loss_func(
            *embeddings, sim_loss_weight=20.0, var_loss_weight=15.0, cov_loss_weight=2.0
        )
    loss = model.loss(features, embeddings)["loss"]
    ours, theirs = (loss_and_gradient(value, embeddings) for value in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_the_weights_of_the_parents_are_options(few_digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = method(few_digits, alpha=0.25, gamma=0, sample_weight=2.0, dimension_weight=0.1)
    monkeypatch.setattr(type(model), "progress", 0.5)
    out = model.loss(views(12), views(6, seed=1))
    expected = 0.25 * 2.0 * out["loss_sample"] + 0.75 * 0.1 * out["loss_dimension"]
    torch.testing.assert_close(out["loss"], expected)


def test_every_metric_is_logged_at_every_step(host: Host, few_digits: Path) -> None:
    model = method(few_digits)
    calls: list[dict[str, Tensor]] = []
    log = model.log_dict
    model.log_dict = lambda figures, **options: (calls.append(figures), log(figures, **options))
    logged = train_steps(host, model, steps=3)
    steps = [call for call in calls if "train_alpha" in call]
    assert len(steps) == 3
    for figures in steps:
        assert figures.keys() == {f"train_{name}" for name in METRICS}
        assert all(torch.isfinite(value) and not value.requires_grad for value in figures.values())
    for name in METRICS:
        assert f"train_{name}_step" in logged and f"train_{name}_epoch" in logged


def test_alpha_is_the_filling_of_the_embedding(host: Host, few_digits: Path) -> None:
    model = method(few_digits)
    seen: list[Tensor] = []
    model.adadim.register_forward_pre_hook(lambda _, inputs: seen.append(torch.stack(list(inputs[1]))))
    logged = train_steps(host, model, steps=1)
    assert seen[0].shape == (2, BATCH, PROJECTOR["proj_output_dim"])
    rank = sum(float(effective_rank(view)) for view in seen[0].detach()) / 2
    assert logged["train_H_Z_step"] == pytest.approx(rank, rel=1e-5)
    assert logged["train_alpha_step"] == pytest.approx(rank / PROJECTOR["proj_output_dim"], rel=1e-5)


@pytest.mark.parametrize(("schedule", "last"), [("linear", 2 / 3), ("cosine", 0.75)])
def test_a_scheduled_alpha_follows_the_training(
    host: Host, few_digits: Path, schedule: str, last: float
) -> None:
    model = method(few_digits, alpha=schedule, gamma=0.1, beta_schedule="linear")
    logged = train_steps(host, model, steps=3)
    assert logged["train_alpha_step"] == pytest.approx(last)
    assert logged["train_beta_step"] == pytest.approx(0.1 * 2 / 3)


def test_the_average_is_saved_and_resumed(host: Host, few_digits: Path) -> None:
    first, second = method(few_digits), method(few_digits)
    train_steps(host, first, steps=3)
    state = copy.deepcopy(first.state_dict())
    assert state["adadim.rank_weight"] == pytest.approx(1 - 0.99**3)
    assert 0 < state["adadim.rank_sum"] < state["adadim.rank_weight"]
    second.load_state_dict(state)
    first_logged, second_logged = (train_steps(host, model, steps=1) for model in (first, second))
    assert first_logged == second_logged
    fresh = train_steps(host, method(few_digits), steps=1)
    assert fresh["train_alpha_step"] != first_logged["train_alpha_step"]


def test_the_checkpoint_holds_the_average(host: Host, few_digits: Path, tmp_path: Path) -> None:
    settings = config("adadim", str(few_digits / "train"), method_kwargs=dict(PROJECTOR))
    settings.backbone = {"name": "timm/test_resnet"}
    settings.checkpoint = {"enabled": True, "dir": str(tmp_path), "frequency": 1, "keep_prev": False}
    run = host.read_run(pretrain(settings))
    steps = len(list((few_digits / "train").rglob("*.png"))) // BATCH
    assert float(run.method.adadim.rank_weight) == pytest.approx(1 - 0.99**steps, rel=1e-5)
    torch.manual_seed(0)
    assert run.method(torch.randn(4, 3, 32, 32))["z"].shape == (4, PROJECTOR["proj_output_dim"])


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"alpha": 1.5}, ["alpha", "1.5", "[0, 1]"]),
        ({"alpha": "erang"}, ["alpha", "erang", "Did you mean 'erank'", "cosine, erank, linear"]),
        ({"proj_output_dim": 0}, ["proj_output_dim", "0", ">= 1"]),
        ({"proj_hidden_dim": 2.5}, ["proj_hidden_dim", "2.5", ">= 1"]),
        ({"alfa": 1}, ["method_kwargs.alfa", "Did you mean 'alpha'", "Valid: alpha, beta_schedule"]),
    ],
)
def test_wrong_options_are_refused_before_training(
    few_digits: Path, kwargs: dict[str, Any], words: list[str]
) -> None:
    settings = config("adadim", str(few_digits / "train"), method_kwargs={**PROJECTOR, **kwargs})
    settings.backbone = {"name": "timm/test_resnet"}
    for start in (build, pretrain):
        with pytest.raises(ConfigError) as error:
            start(settings)
        assert all(word in str(error.value) for word in ("method_kwargs", *words)), str(error.value)


def test_it_trains_on_two_large_crops(few_digits: Path) -> None:
    settings = config("adadim", str(few_digits / "train"), method_kwargs=dict(PROJECTOR))
    settings.augmentations[0].num_crops = 3
    with pytest.raises(ConfigError, match=r"augmentations: give 3 large crops.*AdaDim.*2"):
        build(settings)
