from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from support import METHOD_KWARGS, build, config, train_steps

from solo_dimreg import LDReg
from solo_dimreg.errors import ConfigError
from solo_dimreg.solo_learn import Host

BIT_IDENTICAL = ["simclr", "byol", "mocov2plus", "swav"]


def own_methods(host: Host) -> list[str]:
    return [name for name in METHOD_KWARGS if name in host.methods]


def test_every_method_has_an_ldreg_twin(host: Host) -> None:
    count = {"current": 19, "published": 14}[host.generation]
    assert len(own_methods(host)) == count
    for name in own_methods(host):
        assert issubclass(host.methods[f"ldreg_{name}"], host.methods[name])
    assert host.methods["ldreg"] is host.methods["ldreg_simclr"]
    assert issubclass(host.methods["directclr"], host.base_method)


@pytest.mark.parametrize("name", BIT_IDENTICAL)
def test_without_a_block_training_is_identical_to_the_bit(host: Host, few_digits: Path, name: str) -> None:
    tapped = host.methods[name]
    plain = next(
        kind for kind in tapped.__mro__ if kind.__module__.startswith("solo.methods") and kind is not tapped
    )
    assert plain.__module__.startswith("solo.methods")
    results = []
    for method in (plain, tapped):
        host.methods[name] = method
        try:
            model = build(config(name, str(few_digits / "train")))
            logged = train_steps(host, model)
        finally:
            host.methods[name] = tapped
        results.append((logged, model.state_dict()))
    (plain_logged, plain_state), (logged, state) = results
    assert logged == plain_logged
    assert state.keys() == plain_state.keys()
    assert all(torch.equal(state[key], plain_state[key]) for key in state)


def test_regularizer_leaves_the_initial_weights_alone(few_digits: Path) -> None:
    path = str(few_digits / "train")
    plain = build(config("simclr", path)).state_dict()
    with_block = build(config("simclr", path, regularizers={"ldreg": {"weight": 0.1}})).state_dict()
    assert all(torch.equal(plain[key], with_block[key]) for key in plain)


def test_the_term_is_added_with_its_weight(host: Host, few_digits: Path) -> None:
    """Loss with the block minus loss without it is weight times LDReg of the same features."""
    path = str(few_digits / "train")
    losses, features = {}, None
    for weight in (0.0, 0.5):
        block = {"ldreg": {"weight": weight, "k": 8, "warmup_epochs": 0}}
        model = build(config("simclr", path, regularizers=block))
        model.log = model.log_dict = lambda *_, **__: None
        torch.manual_seed(0)
        images = [torch.randn(16, 3, 32, 32) for _ in range(2)]
        batch = [torch.arange(16), images, torch.arange(16) % 10]
        losses[weight] = model.training_step(batch, 0)
        if features is None:
            model = build(config("simclr", path))
            features = [host.backbone(model)(image) for image in images]
    expected = 0.5 * LDReg(k=8)(features)
    assert expected != 0
    torch.testing.assert_close(losses[0.5] - losses[0.0], expected, atol=1e-5, rtol=1e-4)


def test_momentum_features_join_the_reference_and_views_are_summed(host: Host, few_digits: Path) -> None:
    block = {"ldreg": {"weight": 1.0, "k": 8, "warmup_epochs": 0}}
    model = build(config("byol", str(few_digits / "train"), regularizers=block))
    seen = {}
    term = model.regularizers["ldreg"]
    term.register_forward_hook(lambda _, inputs, output: seen.update(inputs=inputs, output=output))
    train_steps(host, model, steps=1)
    views, momentum_views = seen["inputs"]
    assert len(views) == len(momentum_views) == 2
    assert not any(view.requires_grad for view in momentum_views)
    torch.testing.assert_close(seen["output"], LDReg(k=8)(list(views), list(momentum_views)))
    assert not torch.isclose(seen["output"], LDReg(k=8)(list(views)))


def test_warmup_epochs_train_without_the_term(host: Host, few_digits: Path) -> None:
    path = str(few_digits / "train")
    states = []
    for block in (
        None,
        {"ldreg": {"weight": 1.0, "warmup_epochs": 1}},
        {"ldreg": {"weight": 1.0, "warmup_epochs": 0}},
    ):
        model = build(config("simclr", path, regularizers=block))
        logged = train_steps(host, model)
        assert ("train_ldreg_epoch" in logged) == (block is not None and block["ldreg"]["warmup_epochs"] == 0)
        states.append(host.backbone(model).state_dict()["conv1.weight"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


PAPER = {  # weight and k; None: from the batch
    "ldreg_simclr": (0.01, None),
    "ldreg_byol": (0.005, None),
    "ldreg_vicreg": (0.025, None),
    "ldreg_barlow_twins": (1.0, None),
    "ldreg_mocov2plus": (0.05, 128),
    "ldreg_mocov3": (0.05, 128),
    "ldreg_mae": (5e-6, None),
}


@pytest.mark.parametrize("name", PAPER)
def test_ldreg_twin_brings_the_papers_settings(host: Host, few_digits: Path, name: str) -> None:
    if name not in host.methods:
        assert host.generation == "published"
        return
    model = build(config(name, str(few_digits / "train")))
    term = model.regularizers["ldreg"]
    assert (term.weight, term.regularizer.k) == PAPER[name]
    assert (term.warmup_epochs, term.regularizer.direction) == (10, "max")
    assert all(torch.isfinite(torch.tensor(value)) for value in train_steps(host, model).values())


def test_minlid_lowers_the_lid_of_every_method(host: Host, few_digits: Path) -> None:
    twins = {name.removeprefix("ldreg_") for name in host.methods if name.startswith("ldreg_")}
    assert twins == {name.removeprefix("minlid_") for name in host.methods if name.startswith("minlid_")}
    block = {"ldreg": {"weight": 0.1, "k": 8, "warmup_epochs": 0}}
    model = build(config("minlid_byol", str(few_digits / "train"), regularizers=block))
    term = model.regularizers["ldreg"]
    assert (term.weight, term.regularizer.direction) == (0.1, "min")
    # A LID above 1 is a loss above 0, where LDReg's is below it.
    assert train_steps(host, model, steps=1)["train_ldreg_step"] > 0


def test_config_wins_over_the_papers_settings(few_digits: Path) -> None:
    block = {"ldreg": {"k": 8}}
    model = build(config("ldreg_simclr", str(few_digits / "train"), regularizers=block))
    term = model.regularizers["ldreg"]
    assert (term.weight, term.regularizer.k) == (0.01, 8)


def test_mae_keeps_its_own_name_with_a_block(host: Host, few_digits: Path) -> None:
    if "mae" not in host.methods:
        assert host.generation == "published"
        return
    block = {"ldreg": {"weight": 5e-6, "k": 8, "warmup_epochs": 0}}
    model = build(config("mae", str(few_digits / "train"), regularizers=block))
    assert type(model.backbone).__name__ == "MaskedAutoencoderViT"
    assert "train_ldreg_epoch" in train_steps(host, model)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"ldrag": {"weight": 1}}, ["regularizers.ldrag", "Did you mean 'ldreg'"]),
        ({"ldreg": {"k": 0}}, ["regularizers.ldreg", "k", "0"]),
        ({"ldreg": {"weight": -0.1}}, ["regularizers.ldreg.weight", "-0.1", ">= 0"]),
        ({"ldreg": {"weight": float("nan")}}, ["regularizers.ldreg.weight", "nan"]),
        ({"ldreg": {"weight": True}}, ["regularizers.ldreg.weight", "True"]),
        ({"ldreg": {"weigth": 0.1}}, ["regularizers.ldreg.weigth", "0.1", "Did you mean 'weight'"]),
        ({"ldreg": {"warmup_epochs": 1.5}}, ["regularizers.ldreg.warmup_epochs", "1.5"]),
        ({"ldreg": 0.01}, ["regularizers.ldreg", "0.01", "mapping"]),
        (["ldreg"], ["regularizers", "mapping"]),
    ],
)
@pytest.mark.parametrize("name", ["simclr", "ldreg_byol"])
def test_wrong_blocks_are_refused_with_key_value_and_remedy(
    few_digits: Path, name: str, block, words
) -> None:
    with pytest.raises(ConfigError) as error:
        build(config(name, str(few_digits / "train"), regularizers=block))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_hydra_plugin_imports_neither_torch_nor_solo() -> None:
    code = (
        "import sys, hydra_plugins.solo_dimreg;"
        "print(sorted(name for name in ('torch', 'solo', 'solo_dimreg') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_run_of_the_other_solo_learn_is_read(host: Host, few_digits: Path, tmp_path: Path) -> None:
    """Both write the same weights, under other names, beside another ``args.json``."""
    settings = config("byol", str(few_digits / "train"), backbone={"name": "timm/test_resnet"})
    method = build(settings)
    settings.data.train_path = "images/that/are/elsewhere"
    ours, theirs = ("backbone", "encoder") if host.generation == "current" else ("encoder", "backbone")
    renames = {f"{prefix}{ours}.": f"{prefix}{theirs}." for prefix in ("", "momentum_")}
    state = {}
    for key, value in method.state_dict().items():
        old = next((prefix for prefix in renames if key.startswith(prefix)), None)
        state[renames[old] + key.removeprefix(old) if old else key] = value
    assert sum(key.startswith("momentum_" + theirs) for key in state) > 0
    plain = OmegaConf.to_container(settings)
    other = {"method": "byol", "encoder": "timm/test_resnet", "config": plain}
    (tmp_path / "args.json").write_text(json.dumps(other if host.generation == "current" else plain))
    torch.save({"state_dict": state}, tmp_path / "byol-ep=0.ckpt")
    run = host.read_run(tmp_path)
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        found, expected = run.method(images), method.eval()(images)
    assert torch.equal(found["feats"], expected["feats"]) and torch.equal(found["z"], expected["z"])
