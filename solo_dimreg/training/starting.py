"""Write a first config for a folder of images, which works with solo-learn's script and our command."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from textwrap import indent
from typing import Any

from jinja2 import Environment
from omegaconf import OmegaConf

from solo_dimreg.config.folders import config_root
from solo_dimreg.config.loading import load_settings
from solo_dimreg.config.steps import check_steps
from solo_dimreg.config.values import base_name
from solo_dimreg.datasets.layout import Layout
from solo_dimreg.errors import ConfigError, unknown
from solo_dimreg.solo_learn import Host

TEMPLATE = Path(__file__).parent / "templates" / "config.yaml.j2"
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

    solo-learn's own configs are considered too, if it has any. The content has the method's own terms only.

    Raises:
        ConfigError: The method is unknown, or there is no config of it or of the method behind the variant.
    """
    if method not in host.trainable:
        raise ConfigError(f"--method: {unknown('method', method, host.trainable)}")
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for _, source, content in _configs(host, images):
        found.setdefault(content["method"], (source, content))
    for name in _bases(method):
        if name in found:
            source, base = found[name]
            given = base.get("regularizers") or {}
            terms = {term: given.get(term) or {} for term in host.terms(method, {})}
            return source, {**base, "method": method, "regularizers": terms}
    startable = [each for each in host.trainable if any(name in found for name in _bases(each))]
    raise ConfigError(
        f"--method: {method!r} can be trained, but no config of it is here to start from; init can start "
        f"from: {', '.join(startable)}."
    )


def config_named(host: Host, name: str, images: int) -> tuple[str, dict[str, Any]]:
    """Return the source and the content of the complete config with a name, or raise a ConfigError.

    A method without a config of its name gets the one of :func:`base_config`.
    """
    names = set(host.trainable)
    for stem, source, base in _configs(host, images):
        if stem == name:
            return source, base
        names.add(stem)
    if name not in host.trainable:
        raise ConfigError(unknown("config or method", name, names))
    return base_config(host, name, images)


def _configs(host: Host, images: int) -> list[Config]:
    """Return the configs to derive from, in the order in which they are looked through."""
    ours = [config_root() / "pretrain" / name for name in FOLDERS]
    if images >= FEW:
        ours = [*ours[1:], ours[0]]
    return [config for folder in (*ours, *host.config_folders()) for config in _configs_in(folder)]


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
    text = _written(layout, name, source, base, epochs, steps)
    settings: Any = OmegaConf.create(text)
    del settings["defaults"], settings["hydra"]
    # Without val, init trains on a split, without the hidden folders.
    load_settings(host, settings, images=bool(layout.val or not layout.classes))
    check_steps(settings, layout.images)
    return text


def _written(
    layout: Layout, images: str, source: str, base: Mapping[str, Any], length: int | None, wanted: int | None
) -> str:
    method, momentum = str(base["method"]), dict(base.get("momentum") or {})
    fitting = 2 ** int(math.log2(max(layout.images / STEPS_OF_EPOCH, 1)))
    batch = min(max(fitting, SMALLEST_BATCH), LARGEST_BATCH)
    steps = max(layout.images // batch, 1)
    epochs = length or (math.ceil(wanted / steps) if wanted else max(20, math.ceil(STEPS / steps)))
    warmup = max(1, epochs // 10)
    if momentum.get("base_tau") == SHORT_TAU:
        momentum["base_tau"] = TAU  # the short one is for some hundred steps
    terms = {name: dict(options or {}) for name, options in (base.get("regularizers") or {}).items()}
    for options in terms.values():
        options.pop("k", None)  # by default, it fits the batch
        options["warmup_epochs"] = warmup
    environment = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters |= {"text": text_of, "yaml": _indented}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        hydra=HYDRA,
        layout=layout,
        images=images,
        source=source,
        base=base,
        method=method,
        of_mae=base_name(method) == "mae",
        momentum=momentum,
        terms=terms,
        crop=min(max(layout.side // 8 * 8, SMALLEST_CROP), LARGEST_CROP),
        workers=min(4, os.cpu_count() or 1),
        optimizer={**base["optimizer"], "batch_size": batch},
        scheduler={**base["scheduler"], "warmup_epochs": warmup},
        steps=steps,
        epochs=epochs,
    )


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


def text_of(value: str | Path) -> str:
    """Return a text such that YAML and OmegaConf read it back unchanged."""
    return json.dumps(str(value).replace("${", "\\${"), ensure_ascii=False)


def _indented(content: Any) -> str:
    return indent(OmegaConf.to_yaml(OmegaConf.create(content)).rstrip(), "  ")
