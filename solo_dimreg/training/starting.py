"""Write a first config for a folder of images, which works with solo-learn's script and our command."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import indent
from typing import Any

from omegaconf import OmegaConf

from solo_dimreg.config.folders import config_root
from solo_dimreg.config.loading import load_settings
from solo_dimreg.config.steps import check_steps
from solo_dimreg.config.values import base_name
from solo_dimreg.datasets.layout import Layout
from solo_dimreg.errors import ConfigError, unknown
from solo_dimreg.solo_learn import Host

# Our folders in the order of their size; with few images, those for a short training come first.
FOLDERS = ("digits", "cifar", "imagenet100", "imagenet")
FEW = 20_000
Config = tuple[str, str, dict[str, Any]]  # its name, its source and its content
NEEDED = {"method", "backbone", "optimizer", "scheduler"}
LARGEST_CROP, SMALLEST_CROP = 224, 32
LARGEST_BATCH, SMALLEST_BATCH = 256, 16
# The steps of an epoch, given enough images, and the least steps of a training.
STEPS_OF_EPOCH, STEPS = 8, 2_000
# The momentum for long trainings, and the smaller one of our short trainings.
TAU, SHORT_TAU = 0.99, 0.95


def base_config(host: Host, method: str, images: int) -> tuple[str, dict[str, Any]]:
    """Return the source and the content of the config from which a new one for a method is derived.

    solo-learn's own configs are considered too, if it has any.

    Raises:
        ConfigError: There is no config of the method, or of the method that it is a variant of.
    """
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for _, source, content in _configs(host, images):
        found.setdefault(content["method"], (source, content))
    for name in _bases(method):
        if name in found:
            return found[name]
    startable = [each for each in host.trainable if any(name in found for name in _bases(each))]
    raise ConfigError(
        f"--method: {method!r} can be trained, but no config of it is here to start from; init can start "
        f"from: {', '.join(startable)}."
    )


def config_named(host: Host, name: str, images: int) -> tuple[str, dict[str, Any]]:
    """Return the source and the content of the complete config with a name, ours or solo-learn's.

    A method without a config of its name gets the one of :func:`base_config`.

    Raises:
        ConfigError: There is neither.
    """
    names = set(host.trainable)
    for stem, source, base in _configs(host, images):
        if stem == name:
            return source, base
        names.add(stem)
    if name not in host.trainable:
        raise ConfigError(unknown("config or method", name, names))
    source, base = base_config(host, name, images)
    return source, _with_own_terms(host, name, base)


def _configs(host: Host, images: int) -> list[Config]:
    """Return the configs to derive from, in the order in which they are looked through."""
    ours = [config_root() / "pretrain" / name for name in FOLDERS]
    if images >= FEW:
        ours = [*ours[1:], ours[0]]
    return [config for folder in (*ours, *host.config_folders()) for config in _configs_in(folder)]


def _with_own_terms(host: Host, method: str, base: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config for a method with the method's own terms only: another config may add more."""
    given = base.get("regularizers") or {}
    terms = {term: given.get(term) or {} for term in host.terms(method, {})}
    return {**base, "method": method, "regularizers": terms}


def _bases(method: str) -> tuple[str, str]:
    """Return the methods from whose configs one for a method can be derived, the nearest first."""
    return method, base_name("ldreg_simclr" if method == "ldreg" else method)


@functools.cache
def _configs_in(folder: Path) -> list[Config]:
    """Return the complete configs of a folder; those that are named like their method come first."""
    found = []
    for file in sorted(folder.glob("*.y*ml")):
        content: Any = OmegaConf.to_container(OmegaConf.load(file))
        if content.keys() >= NEEDED:  # otherwise it only adds a term to another config
            found.append((file.stem, f"{folder.name}/{file.stem}.yaml", content))
    return sorted(found, key=lambda each: (each[0] != each[2]["method"], -len(each[0])))


def starting_config(host: Host, method: str, layout: Layout, name: str) -> str:
    """Return a commented config for a folder of images, as YAML.

    Raises:
        ConfigError: The method is unknown, has no config to derive from, or cannot work with the data.
    """
    if method not in host.trainable:
        raise ConfigError(f"--method: {unknown('method', method, host.trainable)}")
    source, base = base_config(host, method, layout.images)
    return fitted_config(host, layout, name, source, _with_own_terms(host, method, base))


def fitted_config(
    host: Host,
    layout: Layout,
    name: str,
    source: str,
    base: Mapping[str, Any],
    epochs: int | None = None,
    steps: int | None = None,
) -> str:
    """Return a commented config for a folder of images, derived from another, as YAML.

    Args:
        source: What the config is derived from, for its comments.
        base: The content of that config.
        epochs, steps: The length of the training; by default at least 20 epochs and 2,000 steps.

    Raises:
        ConfigError: The config cannot work with the data.
    """
    text = "\n".join(_lines(layout, name, source, base, epochs, steps)) + "\n"
    settings: Any = OmegaConf.create(text)
    del settings["defaults"], settings["hydra"]
    # Without val, init trains on a split, without the hidden folders.
    load_settings(host, settings, images=bool(layout.val or not layout.classes))
    check_steps(settings, layout.images)
    return text


def _lines(
    layout: Layout, images: str, source: str, base: Mapping[str, Any], length: int | None, wanted: int | None
) -> Iterator[str]:
    method = str(base["method"])
    crop = min(max(layout.side // 8 * 8, SMALLEST_CROP), LARGEST_CROP)
    fitting = 2 ** int(math.log2(max(layout.images / STEPS_OF_EPOCH, 1)))
    batch = min(max(fitting, SMALLEST_BATCH), LARGEST_BATCH)
    steps = max(layout.images // batch, 1)
    epochs = length or (math.ceil(wanted / steps) if wanted else max(20, math.ceil(STEPS / steps)))
    warmup = max(1, epochs // 10)
    kind = "grey" if layout.grey else "colour"
    labels = f"{len(layout.classes)} classes" if layout.classes else "no labels"
    yield f"# {method} on {layout.images} images ({kind}, about {layout.side} pixels, {labels})."
    yield f"# Written by: solo-dimreg init. Method, optimizer and schedule are derived from {source}."
    yield HYDRA
    yield f"name: {text_of(method + '-' + images)}"
    yield f"method: {text_of(method)}"
    yield from _block(
        "backbone", base["backbone"], "or another timm model as timm/<name>, without these kwargs"
    )
    yield from _block("method_kwargs", base.get("method_kwargs"), f"from {source}")
    momentum = dict(base.get("momentum") or {})
    if momentum.get("base_tau") == SHORT_TAU:
        momentum["base_tau"] = TAU  # the short one is for some hundred steps
    yield from _block("momentum", momentum, "the momentum encoder")
    yield from _block("projector", base.get("projector"), f"from {source}")
    yield from _block("regularizers", _terms(base, warmup), "the terms against collapse")
    yield from _data(layout, crop)
    yield from _views(layout, crop, number=1 if base_name(method) == "mae" else 2)
    optimizer = {**base["optimizer"], "batch_size": batch}
    yield from _block(
        "optimizer", optimizer, f"{steps} steps per epoch; the learning rate is lr * batch_size / 256"
    )
    scheduler = {**base["scheduler"], "warmup_epochs": warmup}
    yield from _block("scheduler", scheduler, "a tenth of the training is warm-up")
    yield from _block(
        "monitor",
        {"every_n_epochs": max(1, epochs // 50)},
        "dimensionality.csv and .png beside the checkpoint",
    )
    yield from _block(
        "checkpoint",
        {"enabled": True, "dir": "trained_models", "frequency": 1},
        "below the working directory",
    )
    yield ENDING
    yield f"max_epochs: {epochs} # {epochs * steps} steps; a representation needs about 1000 to form"
    yield TRAINER


HYDRA = """
defaults:
  - _self_
  - override hydra/hydra_logging: disabled
  - override hydra/job_logging: disabled

# Hydra writes no output folder
hydra:
  output_subdir: null
  run:
    dir: .
"""
ENDING = """auto_resume:
  enabled: False
wandb:
  enabled: False # True logs to Weights & Biases; otherwise metrics.csv is written beside the checkpoint
"""
TRAINER = """seed: 5
devices: "1" # a string works with both commands, also on a CPU; on several GPUs a list, such as [0, 1]
accelerator: "auto"
strategy: "auto" # ddp on several GPUs
precision: 32 # 16-mixed is faster on a GPU
sync_batchnorm: False # True on several GPUs"""


def text_of(value: str | Path) -> str:
    """Return a text such that YAML and OmegaConf read it back unchanged."""
    return json.dumps(str(value).replace("${", "\\${"), ensure_ascii=False)


def _block(name: str, content: Any, why: str) -> Iterator[str]:
    if content:
        yield f"{name}: # {why}"
        yield indent(OmegaConf.to_yaml(OmegaConf.create(content)).rstrip(), "  ")


def _terms(base: Mapping[str, Any], warmup: int) -> dict[str, Any]:
    """Return the base's terms with a warm-up that fits the training, and k from the batch size."""
    terms = {name: dict(options or {}) for name, options in (base.get("regularizers") or {}).items()}
    for options in terms.values():
        options.pop("k", None)
        options["warmup_epochs"] = warmup
    return terms


def _data(layout: Layout, crop: int) -> Iterator[str]:
    yield "data:"
    yield "  dataset: custom # an image folder"
    yield f"  train_path: {text_of(layout.train)}"
    if layout.val and layout.classes:
        yield f"  # main_pretrain.py scores it at 224 x 224, solo-dimreg pretrain at {crop} x {crop}"
        yield f"  val_path: {text_of(layout.val)}"
    else:
        yield "  val_path: null"
    if not layout.classes:
        yield "  no_labels: True # there is no accuracy to measure; solo-dimreg diagnose detects a collapse"
    yield '  format: "image_folder"'
    yield f"  num_workers: {min(4, os.cpu_count() or 1)} # the number of processes that read images"


def _views(layout: Layout, crop: int, number: int) -> Iterator[str]:
    colour, fine = not layout.grey, crop >= 64
    why = (
        "the images are grey: only brightness and contrast change"
        if layout.grey
        else "solo-learn, custom data"
    )
    saturation, hue = (0.2, 0.1) if colour else (0.0, 0.0)
    yield "augmentations: # the representation forgets whatever differs between two views of an image"
    yield f"  - crop_size: {crop} # the images have about {layout.side}; smaller crops train faster"
    yield f"    num_crops: {number}"
    yield "    # the share of the image that a view shows"
    yield f"    rrc: {{enabled: True, crop_min_scale: {0.2 if fine else 0.4}, crop_max_scale: 1.0}}"
    yield f"    # {why}"
    yield "    color_jitter:"
    yield f"      {{prob: 0.8, brightness: 0.4, contrast: 0.4, saturation: {saturation}, hue: {hue}}}"
    yield f"    grayscale: {{prob: {0.2 if colour else 0.0}}}"
    yield f"    gaussian_blur: {{prob: {0.5 if fine else 0.0}}}"
    yield "    solarization: {prob: 0.0}"
    yield "    equalization: {prob: 0.0}"
    yield "    # your choice: 0.5 if a mirrored image means the same (photographs), 0.0 if it"
    yield "    # does not (digits, text, left and right of a body)"
    yield "    horizontal_flip: {prob: 0.0}"
