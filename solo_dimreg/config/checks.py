"""Refuse settings that cannot work, before anything is built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from solo_dimreg.config.agreement import check_agreement
from solo_dimreg.config.data import check_choice, check_data, check_reader
from solo_dimreg.config.schema import Common, Linear, Pretraining
from solo_dimreg.config.validation import check_method_keys, check_method_options, check_schema, keys_of_host
from solo_dimreg.config.values import base_name, device_count, plain
from solo_dimreg.errors import ConfigError, unknown
from solo_dimreg.files import check_writable
from solo_dimreg.monitor.settings import monitor_settings
from solo_dimreg.plugins import registered
from solo_dimreg.solo_learn.divergence import divergence_settings
from solo_dimreg.solo_learn.projector import projector_settings
from solo_dimreg.solo_learn.regularizers import build_terms

if TYPE_CHECKING:
    from solo_dimreg.solo_learn import Host

OPTIMIZERS = ("sgd", "lars", "adam", "adamw")
SCHEDULERS = ("warmup_cosine", "step", "none")
# Methods of solo-learn that accept another number of large crops than two.
ANY_CROPS = ("mae", "wmse")
# In bytes: a checkpoint adds version and epoch to the name, and file names have at most 255 bytes.
LONGEST_NAME = 200
# Blocks that a config may leave empty.
OPTIONAL_BLOCKS = (
    "method_kwargs",
    "momentum",
    "checkpoint",
    "auto_resume",
    "wandb",
    "knn_eval",
    "performance",
    "backbone.kwargs",
    "optimizer.kwargs",
)
REQUIRED = ("max_epochs", "devices", "optimizer.name", "optimizer.batch_size", "optimizer.lr")
REQUIRED_TO_PRETRAIN = (
    "name",
    "method",
    "backbone.name",
    "data.dataset",
    "data.train_path",
    "data.num_workers",
    "augmentations",
)


def check_common(settings: DictConfig) -> None:
    """Refuse settings that no pretraining or linear config can have, and fill empty blocks in place.

    Raises:
        ConfigError: The message names the key, the value and what would be right.
    """
    _resolved(settings)
    for block in ("data", "backbone", "optimizer", "scheduler"):
        if not isinstance(settings.get(block), DictConfig):
            raise ConfigError(
                f"{block}: {settings.get(block)!r} is not allowed; it must be a mapping of settings."
            )
    for key in OPTIONAL_BLOCKS:
        block = OmegaConf.select(settings, key)
        if block is None and _has(settings, key):
            OmegaConf.update(settings, key, {})
        elif block is not None and not isinstance(block, DictConfig):
            raise ConfigError(f"{key}: {block!r} is not allowed; it must be a mapping of settings.")
    _check_present(settings, (*REQUIRED, "optimizer.weight_decay", "scheduler.name"))
    check_choice(settings, "optimizer.name", OPTIMIZERS)
    check_choice(settings, "scheduler.name", SCHEDULERS)
    try:
        devices = plain(settings.devices)
        numbers = [int(part) for part in devices] if isinstance(devices, list) else []
        fits = (
            device_count(devices) >= 1 and len(set(numbers)) == len(numbers) and min(numbers, default=0) >= 0
        )
    except (TypeError, ValueError):
        fits = False
    if not fits or isinstance(devices, bool | dict):
        raise ConfigError(
            f"devices: {settings.devices!r} is not allowed; it must be a number >= 1 or a list of numbers."
        )


def check_pretraining(host: Host, settings: DictConfig) -> None:
    """Refuse a pretraining config, or its data, if the training cannot work.

    Raises:
        ConfigError: The message names the key, the value and what would be right.
    """
    check_settings(host, settings)
    check_agreement(host, settings)
    given = settings.get("resume_from_checkpoint")
    if given is not None and not Path(given).is_file():
        raise ConfigError(f"resume_from_checkpoint: {given!r} is not a file; it must be a checkpoint.")
    monitor = monitor_settings(plain(settings.get("monitor")))
    check_data(settings, need_val=monitor is not None and monitor["on"] == "val")
    check_reader(settings)


def check_settings(host: Host, settings: DictConfig) -> None:
    """Refuse settings of a pretraining that cannot work on any machine or data.

    Raises:
        ConfigError: The message names the key, the value and what would be right.
    """
    check_common(settings)
    _check_present(settings, REQUIRED_TO_PRETRAIN)
    valid = host.trainable
    if settings.method not in valid:
        raise ConfigError(f"method: {unknown('method', str(settings.method), valid)}")
    _check_schema(host, settings, Pretraining)
    check_method_keys(host, settings.method, settings.get("method_kwargs") or {})
    if settings.optimizer.batch_size < 2:
        raise ConfigError("optimizer.batch_size: 1 is not allowed; for batch normalization it must be >= 2.")
    _check_crops(host, settings)
    build_terms(plain(settings.get("regularizers")))
    projector_settings(plain(settings.get("projector")))
    divergence_settings(plain(settings.get("divergence")))
    monitor_settings(plain(settings.get("monitor")))


def check_linear(host: Host, settings: DictConfig) -> None:
    """Refuse a config of the linear evaluation that cannot work.

    Raises:
        ConfigError: The message names the key, the value and what would be right.
    """
    check_common(settings)
    _check_schema(host, settings, Linear)
    check_agreement(host, settings)


def _check_schema(host: Host, settings: DictConfig, schema: type[Common]) -> None:
    content = _resolved(settings)
    check_schema(content, schema, keys_of_host(host))
    brought = registered("methods", host=host).get(str(content.get("method")))
    if brought is None or brought.distribution == "solo-dimreg":  # others' options have unknown meanings
        check_method_options(content.get("method_kwargs") or {})
    name = str(content.get("name", ""))
    if "/" in name or name in (".", "..") or not name.isprintable() or len(name.encode()) > LONGEST_NAME:
        raise ConfigError(
            f"name: {name!r} is not allowed; it names files, so it must be without '/' and at most "
            f"{LONGEST_NAME} bytes of printable characters."
        )
    folder = (content.get("checkpoint") or {}).get("dir")
    if folder and (content["checkpoint"] or {}).get("enabled"):
        check_writable("checkpoint.dir", Path(folder))


def _resolved(settings: DictConfig) -> dict[str, Any]:
    try:
        return plain(settings)
    except OmegaConfBaseException as error:
        reason = str(error.msg or error).strip().partition("\n")[0]
        raise ConfigError(
            f"{error.full_key or 'config'}: {reason}; it must be a value, or refer to one."
        ) from error


def _has(settings: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    block = OmegaConf.select(settings, parent) if parent else settings
    return isinstance(block, DictConfig) and name in block


def _check_present(settings: DictConfig, keys: Sequence[str]) -> None:
    for key in keys:
        if OmegaConf.select(settings, key, throw_on_missing=False) is None:
            raise ConfigError(f"{key}: is missing from the config; it must be there.")


def _check_crops(host: Host, settings: DictConfig) -> None:
    views = settings.augmentations
    if not views:
        raise ConfigError(f"augmentations: {plain(views)!r} is not allowed; it must be a list of views.")
    large = sum(view.num_crops for view in views if view.crop_size == views[0].crop_size)
    method = base_name(settings.method)
    if method in ANY_CROPS or issubclass(host.methods[settings.method], host.Method):
        return
    if large != 2:
        raise ConfigError(
            f"augmentations: num_crops give {large} large crops; for {settings.method} it must be 2."
        )
