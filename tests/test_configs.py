import copy
import csv
import math
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from support import build, most_slow, slow, small

from solo_dimreg.config.blocks import read_blocks
from solo_dimreg.config.composing import evaluation_settings, fit_to_machine
from solo_dimreg.config.values import plain
from solo_dimreg.solo_learn import Run
from solo_dimreg.training.evaluation import linear_accuracy
from solo_dimreg.training.pretraining import pretrain

ROOT = Path(__file__).parents[1] / "configs"
PRETRAIN = sorted(ROOT.glob("pretrain/*/*.yaml"))
LINEAR = sorted(ROOT.glob("linear/*/*.yaml"))

# What a device sees after solo-learn's scaling, from the papers' released code.
RELEASED_LEARNING_RATES = {
    "simclr": 0.075 * 2048**0.5,
    "ldreg_simclr": 0.075 * 2048**0.5,
    "ldreg_simclr_vit": 1.5e-4 * 2048 / 256,
    "ldreg_simclr_tuned": 0.5 * 2048 / 256,
    "ldreg_byol": 0.4 * 2048 / 256,
    "ldreg_mocov3": 0.6 * 2048 / 256,
    "ldreg_mae": 1.5e-4 * 2048 / 256,
    "directclr": 4.8,
    # Trained as LDReg's SimCLR: there is no released code, or none for ImageNet at hand.
    "adadim": 0.075 * 2048**0.5,
    "shuffled_dbn": 0.075 * 2048**0.5,
}
LDREG_WEIGHTS = {"simclr": 0.01, "byol": 0.005, "mocov3": 0.05, "mae": 5e-6}
LDREG_WEIGHT_OF_A_VIT = 0.001  # SimCLR
DIGITS = {
    "adadim",
    "adadim_fixed",
    "bn",
    "byol",
    "directclr",
    "infonce",
    "ldreg_byol",
    "ldreg_simclr",
    "shuffled_dbn",
}
DIGITS |= {"lejepa", "simclr", "vicreg"}
TERMS = ("koleo", "sigreg", "t_regs", "uniformity", "visreg", "wasserstein_uniformity")
DIGITS |= {f"{term}_byol" for term in TERMS}


@cache
def composed(path: Path):
    with initialize_config_dir(str(path.parent), version_base="1.2"):
        return compose(path.stem)


def load(path: Path):
    """A copy of a composed config, which a test may change."""
    return copy.deepcopy(composed(path))


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_config_composes_from_its_own_folder():
    for path in PRETRAIN + LINEAR:
        config = composed(path)
        assert config.wandb.enabled is False, path
        assert config.checkpoint.enabled and config.max_epochs > 0, path
        if path.parents[1].name == "pretrain":
            views = sum(view.num_crops for view in config.augmentations)
            assert views == (1 if config.method == "mae" else 2), path


def test_ldreg_shows_its_settings_and_fits_the_batch():
    for path in PRETRAIN:
        config = composed(path)
        terms = [name for name in ("ldreg", *TERMS) if path.stem.startswith(f"{name}_")]
        assert list(config.get("regularizers", {})) == terms, path
        if terms != ["ldreg"]:
            continue
        settings = config.regularizers.ldreg
        assert set(settings) | {"k"} == {"weight", "k", "warmup_epochs"}, path
        if path.parent.name not in ("digits", "patches", "sprites"):
            of_vit = LDREG_WEIGHT_OF_A_VIT if "vit" in path.stem else None
            assert settings.weight == (of_vit or LDREG_WEIGHTS[config.method.removeprefix("ldreg_")]), path
            # Where the batch is not the paper's, nor are the neighbours.
            assert ("k" in settings) == (path.parent.name == "imagenet" or "moco" in path.stem), path
        assert settings.get("k", 16) < 2 * config.optimizer.batch_size, path
        assert settings.warmup_epochs < config.max_epochs, path


def test_imagenet_has_the_released_learning_rates():
    found = {}
    for path in ROOT.glob("pretrain/imagenet/*.yaml"):
        config = composed(path)
        found[path.stem] = config.optimizer.lr * config.optimizer.batch_size * len(config.devices) / 256
    assert found == pytest.approx(RELEASED_LEARNING_RATES, rel=1e-4)


@pytest.mark.parametrize("name", ["digits", "patches"])
def test_the_configs_of_embedded_data_share_data_backbone_and_epochs(name):
    shared = ["backbone", "data", "augmentations", "max_epochs", "devices"]
    paths = sorted(ROOT.glob(f"pretrain/{name}/*.yaml"))
    assert {path.stem for path in paths} == DIGITS
    configs = [load(path) for path in paths]
    settings = [OmegaConf.to_container(OmegaConf.masked_copy(config, shared)) for config in configs]
    assert all(other == settings[0] for other in settings)
    assert {config.optimizer.batch_size for config in configs} == {128}


def test_groups_divide_the_axes_and_are_smaller_than_the_batch():
    for path in PRETRAIN:
        if "dbn" in path.stem:
            config = composed(path)
            options = config.method_kwargs
            assert options.proj_output_dim % options.num_groups == 0, path
            # Of one device too: a user may train on a single one.
            assert options.proj_output_dim // options.num_groups < config.optimizer.batch_size, path


def test_bn_and_shuffled_dbn_differ_by_the_normalization_alone():
    bn, shuffled = (load(ROOT / "pretrain" / "digits" / f"{name}.yaml") for name in ("bn", "shuffled_dbn"))
    assert (bn.method_kwargs.normalization, shuffled.method_kwargs.normalization) == ("bn", "shuffled_dbn")
    for config in (bn, shuffled):
        OmegaConf.set_struct(config, False)
        for key in ("normalization", "num_groups"):
            config.method_kwargs.pop(key, None)
        config.pop("name")
    assert bn == shuffled


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("name", ["digits", "patches"])
def test_terms_are_added_to_byol_and_nothing_else_is_changed(name, term):
    base, ours = (load(ROOT / "pretrain" / name / f"{stem}.yaml") for stem in ("byol", f"{term}_byol"))
    OmegaConf.set_struct(ours, False)
    assert ours.name == f"{term}_byol-{name}" and ours.pop("regularizers")[term].weight > 0
    ours.name = base.name
    assert ours == base


def test_adadim_has_the_settings_of_its_parents_on_the_digits():
    adadim, vicreg, simclr = (
        load(ROOT / "pretrain" / "digits" / f"{name}.yaml").method_kwargs
        for name in ("adadim", "vicreg", "simclr")
    )
    assert adadim.temperature == simclr.temperature
    assert all(adadim[key] == vicreg[f"{key}_loss_weight"] for key in ("sim", "var", "cov"))
    assert all(adadim[f"proj_{key}_dim"] == vicreg[f"proj_{key}_dim"] for key in ("hidden", "output"))


def test_the_options_are_those_of_the_method(host):
    for path in PRETRAIN:
        config = composed(path)
        read_blocks(plain(config).get)
        method = host.methods.get(config.method)
        assert method or host.generation == "published", path
        if method and issubclass(method, host.Method):
            assert set(config.method_kwargs) <= set(method.own_options()), path


@pytest.mark.parametrize("launcher", ["joblib", "submitit_slurm", "submitit_local"])
def test_sweeps_compose_with_hydras_launchers(launcher: str) -> None:
    with initialize_config_dir(str(ROOT / "pretrain" / "imagenet100"), version_base="1.2"):
        settings = compose(
            "ldreg_byol", overrides=[f"hydra/launcher={launcher}", "+num_nodes=2"], return_hydra_config=True
        )
    assert launcher.partition("_")[0] in settings.hydra.launcher._target_.lower()


def tiny(path: Path, few_digits: Path):
    """A config with one step of little data in place of its own; of the method nothing else is changed."""
    config = load(path)
    OmegaConf.set_struct(config, False)
    fit_to_machine(config)
    config.data = {"dataset": "custom", "train_path": str(few_digits / "train"), "num_workers": 0}
    config.optimizer.batch_size = 96  # groups of up to 64 axes are whitened, k is up to 128
    config.seed = 5
    config.max_epochs = config.limit_train_batches = config.log_every_n_steps = 1
    config.checkpoint.enabled = config.auto_resume.enabled = False
    for term in config.get("regularizers") or {}:
        config.regularizers[term].warmup_epochs = 0
    return config


def with_a_tiny_backbone(config):
    """The settings that belong to a backbone and a resolution go with them."""
    config.backbone = {"name": "timm/test_resnet"}
    for view in config.augmentations:
        view.crop_size = min(view.crop_size, 32)
    if "dim" in config.method_kwargs:  # of DirectCLR, whose features are 96 then
        config.method_kwargs.dim = 48
    if config.method == "mae":
        config.backbone = {"name": "vit_tiny", "kwargs": {"patch_size": 16, "img_size": 32}}
    return config


def is_kept(path: Path) -> bool:
    """Return whether a config is trained without ``--all`` too: a method, a term, and the largest images."""
    return label(path) in ("pretrain/digits/simclr.yaml", "pretrain/imagenet/ldreg_byol.yaml")


@pytest.mark.parametrize("path", most_slow(PRETRAIN, is_kept), ids=label)
def test_every_pretraining_config_trains(path, host, few_digits, tmp_path, monkeypatch):
    """Through the command's own function: schema, checks, solo-learn's data, one step, the monitor."""
    config = tiny(path, few_digits)
    if config.method not in host.methods:
        pytest.skip(f"the {host.generation} solo-learn has no {config.method}")
    if (path.parent.name, path.stem) != ("digits", "simclr"):  # which keeps the backbone of the small data
        with_a_tiny_backbone(config)
    monkeypatch.chdir(tmp_path)
    assert pretrain(config) is None
    (metrics,) = tmp_path.rglob("metrics.csv")
    with metrics.open() as file:
        logged = {name: float(value) for row in csv.DictReader(file) for name, value in row.items() if value}
    assert all(map(math.isfinite, logged.values()))
    assert {f"train_{term}_epoch" for term in config.get("regularizers") or {}} <= set(logged)
    assert "train_class_loss" in {name.removesuffix("_epoch").removesuffix("_step") for name in logged}
    assert ("monitor" in config) == bool(list(tmp_path.rglob("dimensionality.csv")))


@slow
def test_every_backbone_is_built(host, few_digits):
    built = set()
    for path in PRETRAIN:
        config = tiny(path, few_digits)
        kind = str((plain(config.backbone), config.augmentations[0].crop_size))
        if kind not in built and config.method in host.methods:
            model = build(config, host)
            assert sum(weight.numel() for weight in host.backbone(model).parameters()) > 1e6, path
            built.add(kind)


@pytest.mark.parametrize("path", most_slow(LINEAR, lambda path: path.parent.name == "digits"), ids=label)
def test_every_linear_config_trains(path, host, few_digits, tmp_path):
    pretrained = small(few_digits)
    pretrained.data.val_path = str(few_digits / "val")
    run = Run(tmp_path, tmp_path / "simclr-ep=0.ckpt", pretrained, build(pretrained, host).eval())
    config = load(path)
    OmegaConf.set_struct(config, False)
    fit_to_machine(config)
    config = evaluation_settings(config, run)
    config.optimizer.batch_size, config.max_epochs = 64, 1
    figures = linear_accuracy(host, run, config)
    assert 0 <= figures["acc1"] <= figures["acc5"] <= 100 and math.isfinite(figures["loss"])
