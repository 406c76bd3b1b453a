from __future__ import annotations

import subprocess

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from solo_dimreg.config.composing import compose
from solo_dimreg.config.loading import load_settings
from solo_dimreg.config.overrides import for_shell, quoted, read_overrides, with_own_blocks
from solo_dimreg.errors import ConfigError
from solo_dimreg.solo_learn import Host

texts = st.text(st.characters(exclude_categories=["C", "Zl", "Zp", "Zs"]) | st.sampled_from(" \\'${}="))


@given(texts)
def test_a_quoted_value_means_itself(text: str) -> None:
    override = OverridesParser.create().parse_override(f"key={quoted(text)}")
    assert OmegaConf.create({"key": override.value()}).key == text


@pytest.mark.parametrize("text", ["a-ep=1.ckpt", 'it\'s $HOME \\ `x` "y"', "no!", "{a: 1"])
def test_a_shell_hands_on_what_is_to_be_typed(text: str) -> None:
    run = subprocess.run(["sh", "-c", f"printf %s {for_shell('a', text)}"], capture_output=True, text=True)
    assert read_overrides([run.stdout])[0].value() == text


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "resume_from_checkpoint=a/x-ep=1.ckpt",
            ["must be quoted: resume_from_checkpoint=\"'a/x-ep=1.ckpt'\""],
        ),
        (
            "+resume_from_checkpoint=x-ep=1.ckpt",
            ["must be quoted: +resume_from_checkpoint=\"'x-ep=1.ckpt'\""],
        ),
        ("data.train_path=/a (1)/b", ["must be quoted: data.train_path=\"'/a (1)/b'\""]),
        ("name=it's", ["must be quoted: name=\"'it\\\\'s'\""]),
        ("augmentations=[a,b", ["'['", "no partner"]),
        ("max_epochs=3}", ["'}'", "no partner"]),
        ("name=choice(1", ["'('", "no partner"]),
        ("max_epochs", ["has no value", "max_epochs=VALUE"]),
        ("=3", ["'' is not a key"]),
        ("max_epochs = 3", ["'max_epochs ' is not a key", "spaces"]),
        ("max_epochs: 3", ["is not a key", "KEY=VALUE"]),
        ("--max_epochs=3", ["'--max_epochs' is not a key"]),
        ("augmentations[0].crop_size=3", ["'augmentations[0].crop_size' is not a key"]),
        ("max_epochs=1,2", ["--multirun", "'max_epochs=[1,2]'"]),
    ],
)
def test_an_override_that_does_not_parse_is_named_with_what_to_write(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        read_overrides(["seed=1", override])
    message = str(refused.value)
    assert message.startswith(f"override {override!r}: ") and "\n" not in message
    assert all(word in message for word in words), message


def test_a_sweep_is_read_where_there_is_one() -> None:
    assert read_overrides(["seed=1,2"], sweep=True)[0].is_sweep_override()


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("monitor.on=val", "monitor.on", "val"),  # the config has the block, but not the key
        ("regularizers.ldreg.weight=0.5", "regularizers.ldreg.weight", 0.5),
        ("+monitor.every_n_epochs=2", "monitor.every_n_epochs", 2),
        ("limit_train_batches=2", "limit_train_batches", 2),
        ("momentum.classifier=True", "momentum.classifier", True),
        ("optimizer.kwargs.betas=[0.8,0.9]", "optimizer.kwargs.betas", [0.8, 0.9]),
        ("augmentations.0.crop_size=20", "augmentations.0.crop_size", 20),
        ("~method_kwargs.temperature", "method_kwargs.temperature", None),
        ("augmentations=symmetric", "augmentations.0.crop_size", 24),
    ],
)
def test_a_key_that_is_known_needs_no_plus(host: Host, override: str, key: str, value: object) -> None:
    settings = compose("pretrain", "digits", "simclr", [override])
    load_settings(host, settings, images=False)
    assert OmegaConf.select(settings, key) == value


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("monitor.onn=val", ["monitor.onn", "Did you mean 'on'"]),
        ("optimiser.lr=1", ["optimiser", "Did you mean 'optimizer'"]),
        ("optimizer.kwargs.momentun=0.9", ["optimizer.kwargs.momentun", "unknown key"]),
        ("limit_train_batch=2", ["limit_train_batch", "unknown key"]),
        ("regularizers.ldrag.weight=1", ["regularizers.ldrag", "Did you mean 'ldreg'"]),
    ],
)
def test_a_key_that_nobody_knows_is_refused_with_the_nearest(
    host: Host, override: str, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        load_settings(host, compose("pretrain", "digits", "simclr", [override]), images=False)
    assert all(word in str(refused.value) for word in words), refused.value


def test_a_config_of_a_group_that_is_not_there_is_named_without_hydras_paths() -> None:
    with pytest.raises(
        ConfigError, match="augmentations: Unknown config 'augmentations/asymetric'"
    ) as refused:
        compose("pretrain", "digits", "simclr", ["augmentations=asymetric"])
    assert "provider" not in str(refused.value) and "Valid: symmetric." in str(refused.value)


@pytest.mark.parametrize(
    ("override", "one"),
    [
        ("augmentations=[{num_crops: 2}]", "augmentations.0.KEY=VALUE"),
        ("wandb={enabled: true}", "wandb.KEY=VALUE"),
    ],
)
def test_settings_in_the_place_of_a_file_of_a_group_are_refused(override: str, one: str) -> None:
    with pytest.raises(
        ConfigError, match=r"is not allowed; it must be the name of a file \(\w+\)"
    ) as refused:
        compose("pretrain", "digits", "simclr", [override])
    assert str(refused.value).endswith(f"Settings are changed one by one: {one}.")


def test_our_blocks_need_no_plus_in_solo_learns_scripts() -> None:
    given = ["monitor.on=val", "+regularizers.ldreg.k=8", "~monitor", "optimizer.lr=1", "monitors.on=val"]
    changed = ["++monitor.on=val", "++regularizers.ldreg.k=8", *given[2:]]
    assert with_own_blocks(given, lambda _: False) == changed == with_own_blocks(changed, lambda _: False)
    # A group of configs of the user's, from which one is chosen.
    assert with_own_blocks(["+monitor=often"], lambda key: key == "monitor") == ["+monitor=often"]
