"""Load configs, and compare the typed settings and the keys that solo-learn's own code reads."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from support import config

from solo_dimreg.config.blocks import MonitorSettings, ProjectorSettings, read_blocks
from solo_dimreg.config.loading import load_settings
from solo_dimreg.errors import ConfigError
from solo_dimreg.nn.normalization import normalization_layer
from solo_dimreg.solo_learn import Host


def test_a_config_becomes_one_typed_object(host: Host, few_digits: Path) -> None:
    raw = config(
        "simclr",
        str(few_digits / "train"),
        regularizers={"ldreg": {"k": 5}},
        monitor={"every_n_steps": 2},
        wandb=None,
    )
    settings = load_settings(host, raw)
    term = settings.regularizers["ldreg"]
    assert (term.options["k"], term.weight, term.where) == (5, 0.01, "features")
    assert settings.monitor == MonitorSettings(every_n_epochs=None, every_n_steps=2)
    assert settings.projector is None and settings.divergence.patience == 10
    assert settings.optimizer.batch_size == 16 and raw.wandb == {}


def test_blocks_that_are_off_are_none() -> None:
    off = {"regularizers": None, "monitor": {"enabled": False}, "projector": {}, "divergence": None}
    blocks = read_blocks(off.get)
    assert (blocks.regularizers, blocks.monitor, blocks.projector) == ({}, None, None)


def test_the_projector_block_has_the_options_of_the_layer() -> None:
    parameters = inspect.signature(normalization_layer).parameters
    defaults = {name: each.default for name, each in parameters.items() if name != "width"}
    assert dict(ProjectorSettings()) == defaults


def test_a_value_that_must_be_given_is_missing(host: Host, few_digits: Path) -> None:
    raw = config("simclr", str(few_digits / "train"))
    raw.data.val_path = "???"
    with pytest.raises(ConfigError, match=r"data.val_path: is missing from the config"):
        load_settings(host, raw)


def test_keys_that_only_solo_learn_reads_are_allowed(host: Host, few_digits: Path) -> None:
    raw = config("simclr", str(few_digits / "train"))
    OmegaConf.update(raw, "data.num_large_crops", 2, force_add=True)  # solo-learn's parser sets it
    if host.generation == "current":
        load_settings(host, raw)
        return
    with pytest.raises(ConfigError, match=r"data.num_large_crops: unknown key"):
        load_settings(host, raw)
