"""Compose a config and fit it to the machine."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from solo_dimreg.config.folders import find_config
from solo_dimreg.config.overrides import quoted_override, read_overrides, without_plus
from solo_dimreg.config.values import device_count, plain
from solo_dimreg.errors import ConfigError, unknown, warn
from solo_dimreg.quiet import without_logs

if TYPE_CHECKING:
    from solo_dimreg.solo_learn import Host, Run

# What fit_to_machine changes.
MACHINE = ("accelerator", "devices", "strategy", "precision", "sync_batchnorm")
# Blocks that a config may leave empty.
OPTIONAL_BLOCKS = (
    *("method_kwargs", "momentum", "checkpoint", "auto_resume", "wandb", "knn_eval", "performance"),
    *("backbone.kwargs", "optimizer.kwargs"),
)


def compose(
    stage: str, config_path: str, config_name: str, overrides: Sequence[str], host: Host | None = None
) -> DictConfig:
    """Compose a config as solo-learn's scripts do, with our configs beside the user's.

    An override may set a key that the config lacks, with or without ``+``; the checks of the config know all
    keys. If an override names another backbone, the kwargs that only the old one accepts are dropped; this
    needs the host, which builds the backbone.

    Raises:
        ConfigError: There is no such folder or config, or Hydra refuses an override.
    """
    folder, name = find_config(stage, config_path, config_name)
    others = [
        text
        for text, read in zip(overrides, read_overrides(overrides), strict=True)
        if read.key_or_group.partition(".")[0] != "backbone"
    ]
    settings = _composed(folder, name, overrides)
    fill_empty_blocks(settings)
    if host is not None and len(others) < len(overrides):
        _drop_kwargs_of_other(host, settings, _composed(folder, name, others))
    return settings


def _composed(folder: Path, name: str, overrides: Sequence[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder), version_base="1.2"):
            loader = GlobalHydra.instance().config_loader()
            changed = without_plus(overrides, lambda key: bool(loader.get_group_options(key, None)))
            _check_choices(overrides, lambda key: loader.get_group_options(key, None))
            settings = hydra_compose(name, overrides=changed)
    except MissingConfigException as error:
        wanted = str(error.missing_cfg_file)
        group = wanted.rpartition("/")[0]
        raise ConfigError(f"{group or name}: {unknown('config', wanted, error.options or ())}") from error
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise ConfigError(f"{name}: {' '.join(str(error).split())}") from error
    OmegaConf.set_struct(settings, False)
    return settings


def _check_choices(overrides: Sequence[str], options: Callable[[str], list[str]]) -> None:
    """Raise ConfigError if an override gives settings where the name of a file is wanted."""
    for override in read_overrides(overrides):
        value, names = override.value(), options(override.key_or_group)
        chosen = value if isinstance(value, list) else [value]
        if names and any(isinstance(each, dict | list) for each in chosen):
            key = override.key_or_group
            one = f"{key}.0.KEY=VALUE" if isinstance(value, list) else f"{key}.KEY=VALUE"
            raise ConfigError(
                f"{key}: {value} is not allowed; it must be the name of a file ({', '.join(names)}). "
                f"Settings are changed one by one: {one}."
            )


def _drop_kwargs_of_other(host: Host, settings: DictConfig, before: DictConfig) -> None:
    """Remove from ``backbone.kwargs`` the old backbone's kwargs that the new one does not accept, in place.

    The accepted kwargs are found by building the backbone: most backbones pass their arguments on, so that
    their signatures do not tell. Any other fault is left to the checks of the config. ``before`` is the same
    config without the overrides of its backbone.
    """
    old, new = before.get("backbone"), settings.get("backbone")
    if not (OmegaConf.is_dict(old) and OmegaConf.is_dict(new)) or old.get("name") == new.get("name"):
        return
    theirs, given = plain(old.get("kwargs")), plain(new.get("kwargs"))
    if not (isinstance(theirs, dict) and isinstance(given, dict)):
        return
    dropped = []
    with without_logs():  # solo-learn logs the constructor of a ViT each time
        while set(theirs) & set(given):
            name = _refused(host, settings, given)
            if name is None or given[name] != theirs.get(name):
                break
            dropped.append(name)
            del given[name]
    if dropped:
        new.kwargs = given
        warn(
            f"backbone.kwargs: left out {', '.join(dropped)}, which {old.name} had and {new.name} does not "
            "accept."
        )


def _refused(host: Host, settings: DictConfig, kwargs: dict[str, Any]) -> str | None:
    """Return the first keyword argument that the backbone of a config does not accept, or None."""
    try:
        host.bare_backbone(str(settings.backbone.name), settings.get("method"), kwargs)
    except Exception as error:
        name = refused_keyword(error)
        return name if name in kwargs else None
    return None


def refused_keyword(error: BaseException | None) -> str | None:
    """Return the keyword argument that a call did not accept, from the ``TypeError`` behind an error."""
    while error is not None:
        found = re.search(r"got an unexpected keyword argument '(\w+)'", str(error))
        if isinstance(error, TypeError) and found:
            return found.group(1)
        error = error.__cause__
    return None


def fill_empty_blocks(settings: DictConfig) -> None:
    """Put an empty mapping in the place of every null that stands for an empty block, in place."""
    for key in OPTIONAL_BLOCKS:
        parent, _, name = key.rpartition(".")
        try:
            block = settings.get(parent) if parent else settings
            if OmegaConf.is_dict(block) and name in block and block.get(name) is None:
                block[name] = {}
        except OmegaConfBaseException:
            continue  # an interpolation that leads nowhere is refused with the other settings


@cache
def _say_once(line: str) -> None:
    """Print a line, unless this process has printed it: a comparison composes the configs of many rows."""
    print(line, file=sys.stderr)


def fit_to_machine(settings: DictConfig) -> None:
    """Turn a config written for GPUs into one for this machine's CPU, in place, if there is no GPU."""
    if torch.cuda.is_available():
        return
    wanted, devices = str(settings.get("accelerator", "auto")), device_count(settings.get("devices", 1))
    if wanted != "cpu" and (wanted != "auto" or devices > 1):
        _say_once(f"No GPU here: accelerator {wanted} becomes cpu, on one device, in 32 bits.")
        devices = 1
    elif (precision := settings.get("precision", 32)) not in (32, "32", "32-true"):
        _say_once(f"No GPU here: precision {precision} becomes 32.")
    settings.accelerator = "cpu"
    settings.devices = str(devices)
    settings.strategy = "ddp" if settings.devices != "1" else "auto"
    settings.precision = 32
    settings.sync_batchnorm = bool(settings.devices != "1" and settings.get("sync_batchnorm", False))


def other_data(folder: Path) -> tuple[str, ...]:
    """Return overrides that make a config read a folder with train/ and val/, or raise a ConfigError."""
    for split in ("train", "val"):
        if not (folder / split).is_dir():
            raise ConfigError(f"--data: {str(folder)!r} has no folder {split!r}; it must have train and val.")
    paths = [quoted_override(f"data.{split}_path", folder / split) for split in ("train", "val")]
    return ("data.dataset=custom", "++data.format=image_folder", *paths)


def evaluation_settings(settings: DictConfig, run: Run, overrides: Sequence[str] = ()) -> DictConfig:
    """Return a linear config with the data and the backbone of the pretraining run.

    A key of ``data`` that the overrides of the command line set is left as it is.
    """
    given = {override.lstrip("+").partition("=")[0] for override in overrides}
    merged = OmegaConf.create(plain(settings))
    for key in ("dataset", "train_path", "val_path", "format", "num_workers"):
        if f"data.{key}" not in given:
            OmegaConf.update(merged, f"data.{key}", run.settings.data.get(key), force_add=True)
    if merged.data.format in (None, "dali"):
        merged.data.format = "image_folder"  # the evaluation of a DALI run reads this format too
    backbone = run.settings.backbone
    merged.backbone = {"name": backbone.name, "kwargs": plain(backbone.get("kwargs", {}))}
    merged.pretrain_method = run.settings.method
    merged.pretrained_feature_extractor = str(run.checkpoint)
    return merged
