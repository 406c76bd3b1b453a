"""LeJEPA as a method, on both solo-learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import build, build_small, config, train_steps

from solo_dimreg import LeJEPA
from solo_dimreg.errors import ConfigError
from solo_dimreg.solo_learn import Host

SMALL = {"proj_hidden_dim": 32, "proj_output_dim": 16, "num_slices": 64}


def settings(few_digits: Path, **kwargs: Any) -> Any:
    made = config("lejepa", str(few_digits / "train"), method_kwargs={**SMALL, **kwargs})
    made.backbone = {"name": "timm/test_resnet"}
    return made


@pytest.mark.parametrize("multicrop", [False, True])
def test_it_trains_on_all_crops(host: Host, few_digits: Path, multicrop: bool) -> None:
    model = build_small(few_digits, "lejepa", multicrop, method_kwargs={**SMALL, "weight": 0.1})
    seen: list[Any] = []
    model.lejepa.register_forward_hook(lambda _, inputs, loss: seen.append((inputs, loss.detach())))
    # One step: the trainer clears the gradients before the next, and there was none.
    logged = train_steps(host, model, steps=1, sizes=(32, 32, 16, 16) if multicrop else (32, 32))
    ((large, small), loss) = seen[0]
    assert [view.shape for view in (*large, *small)] == [(16, 16)] * (4 if multicrop else 2)
    assert len(small) == (2 if multicrop else 0)
    again = LeJEPA(weight=0.1, num_slices=64)(
        [view.detach() for view in large], [view.detach() for view in small]
    )
    torch.testing.assert_close(loss, again)
    terms = logged["train_lejepa_invariance_epoch"], logged["train_lejepa_sigreg_epoch"]
    assert float(loss) == pytest.approx(0.9 * terms[0] + 0.1 * terms[1], rel=1e-5)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.projector.parameters())
    assert any(p.grad.abs().max() > 0 for p in host.backbone(model).parameters())
    assert model.eval()(torch.randn(4, 3, 32, 32))["z"].shape == (4, 16)


def test_there_is_no_teacher(host: Host, few_digits: Path) -> None:
    assert not issubclass(host.methods["lejepa"], host.momentum_method)
    names = {name.split(".")[0] for name, _ in build(settings(few_digits)).named_parameters()}
    assert names == {"backbone" if host.generation == "current" else "encoder", "classifier", "projector"}


def test_it_counts_its_steps_and_saves_them(host: Host, few_digits: Path) -> None:
    model = build(settings(few_digits))
    train_steps(host, model, steps=3)
    (count,) = (value for name, value in model.state_dict().items() if name.endswith("_extra_state"))
    assert count.item() == 3


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"weight": 2}, ["method_kwargs", "weight must be a finite number in [0, 1]", "2"]),
        ({"proj_output_dim": 0}, ["method_kwargs", "proj_output_dim", "0"]),
        ({"lamb": 0.1}, ["method_kwargs.lamb", "Valid: knots, num_slices, proj_hidden_dim"]),
    ],
)
def test_wrong_options_are_refused(few_digits: Path, kwargs: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        build(settings(few_digits, **kwargs))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_three_large_crops_are_refused(few_digits: Path) -> None:
    made = settings(few_digits)
    made.augmentations[0].num_crops = 3
    with pytest.raises(ConfigError, match="give 3 large crops; LeJEPA needs 2"):
        build(made)


@pytest.mark.parametrize("name", ["simclr", "byol"])
def test_the_newest_terms_train_together_by_name(host: Host, few_digits: Path, name: str) -> None:
    terms = ("sigreg", "visreg", "t_regs", "wasserstein_uniformity", "uniformity", "koleo")
    model = build_small(few_digits, name, False, regularizers={term: {"weight": 0.01} for term in terms})
    places = {term: model.regularizers[term].where for term in terms}
    assert [term for term in terms if places[term] == "features"] == ["koleo"]
    logged = train_steps(host, model, steps=2)
    assert all(np.isfinite(logged[f"train_{term}_epoch"]) and logged[f"train_{term}_epoch"] for term in terms)
