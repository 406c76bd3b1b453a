"""Every key, type and range of a config is checked before anything is built; what works is let through."""

from __future__ import annotations

import os
import re
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf
from support import config, most_slow, small

from solo_dimreg.config import agreement
from solo_dimreg.config.agreement import idle_settings
from solo_dimreg.config.composing import compose
from solo_dimreg.config.loading import load_linear_settings, load_settings
from solo_dimreg.config.steps import check_steps
from solo_dimreg.config.values import plain
from solo_dimreg.errors import ConfigError
from solo_dimreg.plugins.manager import Registration
from solo_dimreg.solo_learn import Host
from solo_dimreg.training.pretraining import pretrain
from solo_dimreg.training.scripts import ScriptChecks

NAN, INF = float("nan"), float("inf")
CROP = "augmentations.0"
# Of each key the values that are wrong; beside a misspelt key the one that was meant.
WRONG: dict[str, list[Any]] = {
    "max_epochs": [0, -1, 1.5, "ten", True, None],
    "seed": [-1, 1.5, "a", True],
    "num_nodes": [0, -2, "two"],
    "devices": [0, "abc", []],
    "accelerator": ["gpus", "cud", 3, True],
    "strategy": ["dpp", "ddp2x", 1],
    "precision": [17, "fp16", "16-mix", 3.5],
    "sync_batchnorm": ["yes", 1, "true"],
    "accumulate_grad_batches": [0, -1, 1.5, "a"],
    "gradient_clip_val": [-1, "a", NAN, INF],
    "limit_train_batches": [-4, 1.5, "a", NAN],
    "limit_val_batches": [-1, 2.5],
    "check_val_every_n_epoch": [0, -1, 0.5],
    "log_every_n_steps": [-1, 0.5],
    "method": ["simclrr", "", None, "linear"],
    "name": ["a/../../b", "/tmp/x", "..", None],
    "backbone.name": [None, 3],
    "backbone.kwargs": [3, "a", [1]],
    "data.dataset": ["cifar11", None, 3],
    "data.train_path": [None, "/nowhere/at/all"],
    "data.format": ["folder", "dalii"],
    "data.num_workers": [-1, 1.5, "a", None],
    "data.no_labels": ["no", 2],
    "data.fraction": [2, "half"],
    "optimizer.name": ["adam2", None, "SGD"],
    "optimizer.batch_size": [0, 1, -8, 1.5, "a", None, True, 100_000],
    "optimizer.lr": [-0.1, "a", NAN, INF, None, True],
    "optimizer.classifier_lr": [-0.1, "a", NAN],
    "optimizer.weight_decay": [-1, "a", NAN, None],
    "optimizer.exclude_bias_n_norm_wd": ["yes", 3],
    "optimizer.kwargs": [3, "a"],
    "optimizer.kwargs.momentum": [7, -0.1, "a", NAN],
    "optimizer.kwargs.nesterov": ["yes", 1],
    "scheduler.name": ["warmup_cosin", None, "cosine_annealing"],
    "scheduler.warmup_epochs": [-1, "a", NAN],
    "scheduler.warmup_start_lr": [-1, "a", INF],
    "scheduler.min_lr": [-1, "a", NAN],
    "scheduler.lr_decay_steps": [3, "a", [1.5], [-1]],
    "scheduler.interval": ["steps", 3],
    "momentum.base_tau": [2, -0.1, "a", NAN],
    "momentum.final_tau": [1.01, -1, "a"],
    "momentum.classifier": ["no", 1],
    "checkpoint.enabled": ["yes", 1],
    "checkpoint.dir": [3],
    "checkpoint.frequency": [0, -1, 1.5, "a"],
    "checkpoint.keep_prev": ["no", 2],
    "auto_resume.enabled": ["yes", 3],
    "auto_resume.max_hours": [0, -1, "a", NAN],
    "wandb.enabled": ["yes", 3],
    "wandb.offline": ["yes"],
    "wandb.project": [3],
    "knn_eval.enabled": ["yes"],
    "knn_eval.k": [0, 1.5, "a"],
    "knn_eval.distance_func": ["cosin", "l2"],
    "performance.disable_channel_last": ["yes"],
    "dali.device": ["cuda"],
    "resume_from_checkpoint": [3],
    f"{CROP}.crop_size": [0, -3, 1.5, "a", None],
    f"{CROP}.num_crops": [0, 1, 3, 1.5, "a"],
    f"{CROP}.rrc.enabled": ["yes", 2],
    f"{CROP}.rrc.crop_min_scale": [0, -3, 1.5, "a", NAN],
    f"{CROP}.rrc.crop_max_scale": [0, 2, 0.01],
    f"{CROP}.color_jitter.prob": [7, -0.1, "a", NAN],
    f"{CROP}.color_jitter.brightness": [-1, "a", INF],
    f"{CROP}.color_jitter.contrast": [-1],
    f"{CROP}.color_jitter.saturation": [-1],
    f"{CROP}.color_jitter.hue": [0.6, -0.1],
    f"{CROP}.grayscale.prob": [7, "a"],
    f"{CROP}.gaussian_blur.prob": [7, -1],
    f"{CROP}.solarization.prob": [1.1],
    f"{CROP}.equalization.prob": [2],
    f"{CROP}.horizontal_flip.prob": [-1, True],
    f"{CROP}.mean": [3, ["a"], [NAN]],
    f"{CROP}.std": [[0.0], [-1.0], "a"],
    "method_kwargs.proj_hidden_dim": [0, -1, 1.5, "a", True],
    "method_kwargs.proj_output_dim": [0, 2.5, None],
    "method_kwargs.temperature": [0, -1, NAN, INF, "a", True],
    "divergence.patience": [0, 1.5, True],
    "regularizers.ldreg.weight": [-1, "a", NAN],
    "regularizers.ldreg.k": [0, 1.5, "a"],
    "regularizers.ldreg.norm": ["l3"],
    "regularizers.ldreg.warmup_epochs": [-1, 1.5],
    "monitor.every_n_epochs": [0, "a"],
    "monitor.metrics": [["nothing"], "lid", []],
    "projector.normalization": ["dbnn", 3],
}
MISSPELT = {
    "max_epoch": "max_epochs",
    "device": "devices",
    "precison": "precision",
    "optimizer.lrr": "lr",
    "optimizer.weight_decy": "weight_decay",
    "optimizer.kwargs.momentun": "momentum",
    "scheduler.warmup": "warmup_epochs",
    "scheduler.warmup_epoch": "warmup_epochs",
    "backbone.nam": "name",
    "data.foo": "",
    "data.train_pth": "train_path",
    "checkpoint.freq": "frequency",
    "auto_resume.foo": "",
    "auto_resume.max_hour": "max_hours",
    "wandb.foo": "",
    "wandb.projekt": "project",
    "momentum.base_tao": "base_tau",
    "knn_eval.kk": "k",
    "performance.disable_channels_last": "disable_channel_last",
    f"{CROP}.solarise": "solarization",
    f"{CROP}.rrc.crop_min": "crop_min_scale",
    f"{CROP}.color_jitter.hues": "hue",
    f"{CROP}.grayscale.p": "",
    "method_kwargs.foo": "",
    "method_kwargs.temprature": "temperature",
    "divergence.patients": "patience",
    "regularizers.ldreg.weigth": "weight",
    "monitor.every_n_epoch": "every_n_epochs",
    "projector.normalisation": "normalization",
    "regularizer.ldreg.weight": "regularizers",
}
# Of which another setting is as much to blame: they are named by the block of both.
PAIRS: dict[tuple[str, float], str] = {
    (f"{CROP}.num_crops", 1): "augmentations",
    (f"{CROP}.num_crops", 3): "augmentations",
    (f"{CROP}.rrc.crop_max_scale", 0.01): f"{CROP}.rrc",
}
REMEDY = re.compile(r"must be |Did you mean |Valid: |make it smaller")
CASES = [(key, value) for key, values in WRONG.items() for value in values]


def with_setting(few_digits: Path, key: str, value: Any) -> DictConfig:
    settings = config("simclr", str(few_digits / "train"), optimizer={
        "name": "sgd", "batch_size": 16, "lr": 0.1, "classifier_lr": 0.1, "weight_decay": 0.0, "kwargs": {},
    })  # fmt: skip
    settings.augmentations[0].update({"mean": [0.5] * 3, "std": [0.5] * 3})
    OmegaConf.update(settings, key, value, force_add=True)
    return settings


def refusal(host: Host, settings: DictConfig) -> str:
    with pytest.raises(ConfigError) as error:
        load_settings(host, settings)
        check_steps(settings, 120)
    message = str(error.value)
    assert "\n" not in message and "pydantic" not in message
    return message


def names_fault(message: str, key: str, value: Any) -> bool:
    """Return whether a message names the whole key, the value, and what would be right."""
    key = PAIRS.get((key, value) if isinstance(value, int | float) else ("", 0), key)
    starts = (f"{key}: ", f"{key}.0: ") if isinstance(value, list) else f"{key}: "  # of a list, or its item
    shown = value[0] if value and isinstance(value, list) and repr(value) not in message else value
    value_there = value is None or repr(shown) in message or str(shown) in message
    return message.startswith(starts) and value_there and bool(REMEDY.search(message))


@pytest.mark.parametrize(
    ("key", "value"),
    most_slow(CASES, keep=lambda case: case[1] is WRONG[case[0]][0]),  # the first of each key
    ids=[f"{key}={value}" for key, value in CASES],
)
def test_wrong_values_are_refused_with_key_value_and_remedy(
    host: Host, few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refusal(host, with_setting(few_digits, key, value))
    assert names_fault(message, key, value), message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("key", "meant"), MISSPELT.items())
def test_unknown_keys_are_refused_with_the_nearest(
    host: Host, few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, meant: str
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refusal(host, with_setting(few_digits, key, 0.123))
    if key.startswith("regularizer."):  # the block itself is misspelt
        key = "regularizer"
    assert names_fault(message, key, 0.123) and "unknown key" in message, message
    assert not meant or f"Did you mean {meant!r}" in message, message
    assert not list(tmp_path.iterdir())


def test_keys_can_be_allowed(host: Host, few_digits: Path) -> None:
    settings = with_setting(few_digits, "data.theirs", 3)
    settings.extra_keys = ["data.theirs", "theirs"]
    settings.theirs = {"anything": 1}
    load_settings(host, settings)
    settings.profiler = "simple"  # Lightning's trainer takes it
    load_settings(host, settings)


@pytest.mark.parametrize("key", ["checkpoint.dir", "checkpoint"])
def test_an_interpolation_that_leads_nowhere_is_named(host: Host, few_digits: Path, key: str) -> None:
    message = refusal(host, with_setting(few_digits, key, "${nowhere.at.all}"))
    assert message.startswith(key) and "nowhere" in message


@pytest.mark.parametrize("folder", ["/proc/x", "a_file/x"])
def test_a_folder_that_cannot_be_written_is_refused(
    host: Host, few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a_file").touch()
    settings = with_setting(few_digits, "checkpoint", {"enabled": True, "dir": folder})
    assert refusal(host, settings).startswith("checkpoint.dir: ")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("optimizer.lrr", 1, "Did you mean 'lr'"),
        ("mixup", -1, "mixup: -1"),
        ("label_smoothing", 2, "label_smoothing: 2"),
        ("auto_augment", "yes", "auto_augment: 'yes'"),
        ("classifer", {}, "Did you mean 'classifier'"),
        ("finetune", 3, "finetune: 3"),
    ],
)
def test_linear_configs_are_checked_too(host: Host, key: str, value: Any, words: str) -> None:
    settings = compose("linear", "digits", "linear", ["pretrained_feature_extractor=x.ckpt"])
    load_linear_settings(host, settings)
    OmegaConf.update(settings, key, value, force_add=True)
    with pytest.raises(ConfigError, match=words):
        load_linear_settings(host, settings)


# Of every kind one, as it is typed; of settings that do not go together too.
TYPED: dict[str, str] = {
    "+optimizer.lrr=1": "optimizer.lrr",
    "max_epochs=-1": "max_epochs",
    "method_kwargs.temperature=0": "method_kwargs.temperature",
    "checkpoint.dir=/proc/x": "checkpoint.dir",
    "checkpoint.dir=a_file": "checkpoint.dir",
    "name=a/../../b": "name",
    "name=${nowhere}": "name",
    "accelerator=cud": "accelerator",
    "precision=fp16": "precision",
    "strategy=dpp": "strategy",
    "sync_batchnorm=yess": "sync_batchnorm",
    "devices=[0,0]": "devices",
    "+limit_train_batches=0": "limit_train_batches",
    "+limit_train_batches=0.001": "limit_train_batches",
    "+max_steps=-3": "max_steps",
    "+profiler=fast": "profiler",
    "seed=4294967296": "seed",
    "optimizer=null": "optimizer",
    "scheduler.name=step": "scheduler.lr_decay_steps",
    "optimizer.name=lars +optimizer.kwargs.foo=1": "optimizer.kwargs.foo",
    "optimizer.name=sgd +optimizer.kwargs={nesterov:True,momentum:0.0}": "optimizer.kwargs",
    "optimizer.name=adam +optimizer.kwargs={foreach:True,fused:True}": "optimizer.kwargs",
    "+regularizers.ldreg.k=32": "regularizers.ldreg.k",
    "+monitor.metrics=lid": "monitor.metrics",
    "method=byol +momentum={base_tau:0.9,final_tau:0.5}": "momentum",
    "method=mocov2plus +method_kwargs.queue_size=50": "method_kwargs.queue_size",
    "data.val_path=nowhere": "data.val_path",
    "data.format=h5": "data.format",
    "+data.fraction=0": "data.fraction",
    "+callback=1": "callback",
}


@pytest.mark.parametrize("typed", TYPED)
def test_the_command_line_ends_with_one_line_and_nothing_written(
    here: Any, few_digits: Path, tmp_path: Path, typed: str
) -> None:
    (tmp_path / "a_file").touch()
    paths = [f"data.{split}_path={few_digits / split}" for split in ("train", "val")]
    overrides = [("++" if each.startswith("seed") else "") + each for each in typed.split()]
    began = time.perf_counter()
    done = here("pretrain", "-cp", "digits", "-cn", "simclr", *paths, "optimizer.batch_size=16", *overrides)
    print(f"{typed}: {time.perf_counter() - began:.2f} s")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith(f"error: {TYPED[typed]}: ") and REMEDY.search(line), line
    assert not done.stdout and [each.name for each in tmp_path.iterdir()] == ["a_file"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"scheduler": {"name": "warmup_cosine", "warmup_epochs": 3}}, "scheduler.warmup_epochs: 3"),
        ({"regularizers": {"ldreg": {"warmup_epochs": 4}}}, "regularizers.ldreg.warmup_epochs: 4"),
        ({"regularizers": {"ldreg": {"weight": 0.1}}}, "regularizers.ldreg.warmup_epochs: 10"),
        ({"method": "ldreg_simclr"}, "regularizers.ldreg.warmup_epochs: 10"),
        (
            {"method": "ldreg_mocov2plus", "regularizers": {"ldreg": {"warmup_epochs": 0}}},
            "regularizers.ldreg.k: 128, the default of ldreg_mocov2plus",
        ),
        ({"regularizers": {"ldreg": {"k": 15, "warmup_epochs": 2}}}, ""),
        ({"devices": "2", "regularizers": {"ldreg": {"k": 31, "warmup_epochs": 2}}}, ""),
    ],
)
def test_what_a_training_is_too_short_or_too_small_for_is_said(
    host: Host, few_digits: Path, changes: dict[str, Any], says: str
) -> None:
    settings = config("simclr", str(few_digits / "train"), max_epochs=3)
    settings.update(changes)
    settings.method_kwargs = {}
    lines = list(idle_settings(host, settings, load_settings(host, settings)))
    assert len(lines) == bool(says) and all(line.startswith(says) for line in lines), lines


def test_neighbours_are_counted_over_all_processes(host: Host, few_digits: Path) -> None:
    settings = with_setting(few_digits, "regularizers.ldreg.k", 128)
    settings.devices, settings.num_nodes = [0, 1], 2
    assert "k: 128 is not allowed; it must be at most 127" in refusal(host, settings)
    settings.regularizers.ldreg.k = 127
    load_settings(host, settings)


def test_those_of_both_encoders_are_neighbours(host: Host, few_digits: Path) -> None:
    settings = with_setting(few_digits, "regularizers.ldreg.k", 63)
    settings.method, settings.method_kwargs = "mocov2plus", {}
    load_settings(host, settings)
    settings.regularizers.ldreg.k = 64
    assert "k: 64 is not allowed; it must be at most 63" in refusal(host, settings)


def test_what_the_options_of_another_packages_method_mean_is_not_known(
    host: Host, few_digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = with_setting(few_digits, "method_kwargs.noise_dim", 0)
    assert "method_kwargs.noise_dim" in refusal(host, settings)
    theirs = Registration("simclr", "methods", host.methods["simclr"], "theirs", "another-package")
    monkeypatch.setattr(agreement, "registered", lambda kind, **_: {"simclr": theirs})
    monkeypatch.setattr(agreement, "check_keys", lambda *_, **__: None)
    load_settings(host, settings)


def test_a_strategy_that_lightning_registers_is_allowed(host: Host, few_digits: Path) -> None:
    registry = import_module(f"{host.pl.__name__}.strategies").StrategyRegistry
    for name in registry.available_strategies():
        load_settings(host, with_setting(few_digits, "strategy", name), images=False)


def test_a_config_needs_no_block_of_checkpoints(
    host: Host, few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = small(few_digits, "simclr")
    for name in ("checkpoint", "wandb", "auto_resume"):
        settings.pop(name, None)
    assert pretrain(settings) is None


def test_every_pretraining_config_of_solo_learn_passes(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (clone := os.environ.get("SOLO_LEARN")):  # the published one comes without its scripts
        pytest.skip("needs SOLO_LEARN=<clone of github.com/vturrisi/solo-learn>")
    for check in ("loading.check_data", "loading.check_reader"):  # their images are not here
        monkeypatch.setattr(f"solo_dimreg.config.{check}", lambda *args, **kwargs: None)
    on_cpu = {"accelerator": "cpu", "devices": "1", "strategy": "auto", "precision": 32}
    passed = 0
    for path in sorted(Path(clone, "scripts", "pretrain").rglob("*.yaml")):
        content = yaml.safe_load(path.read_text())
        if (
            not isinstance(content, dict)
            or "method" not in content
            or content["method"] not in host.trainable
        ):
            continue
        settings = compose("pretrain", str(path.parent), path.stem, [])
        if plain(settings).get("data", {}).get("train_path") is None:
            continue
        load_settings(host, settings)
        settings.update(on_cpu)
        in_script = ScriptChecks()  # as in main_pretrain.py: without a word of ours nothing is checked
        assert not in_script.config(settings)
        settings.monitor = {}
        assert in_script.config(settings)
        passed += 1
    assert passed >= 30
