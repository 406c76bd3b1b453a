"""Refuses settings and data that cannot work, before anything is built."""

from __future__ import annotations

import difflib
import importlib.util
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from solo_dimreg.blocks.monitor import monitor_settings
from solo_dimreg.blocks.projector import projector_settings
from solo_dimreg.blocks.regularizers import build_terms
from solo_dimreg.datasets.check import IMAGE_SUFFIXES, check_images
from solo_dimreg.errors import ConfigError, unknown
from solo_dimreg.files import check_writable
from solo_dimreg.hosts import OWN_BLOCKS, Host, base_name, device_count, plain
from solo_dimreg.hosts.guard import divergence_settings
from solo_dimreg.running.schema import Common, Linear, Pretraining
from solo_dimreg.running.validation import check_method_keys, check_schema, keys_of_host

FOLDER_DATASETS = ("custom", "imagenet", "imagenet100")
DATASETS = ("cifar10", "cifar100", "stl10", *FOLDER_DATASETS)
FORMATS = ("image_folder", "h5", "dali")
OPTIMIZERS = ("sgd", "lars", "adam", "adamw")
SCHEDULERS = ("warmup_cosine", "step", "none")
# Methods of solo-learn's that take other than two large crops.
ANY_CROPS = ("mae", "wmse")
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
# Least value of the settings that are numbers; None: any. Whole numbers are those whose least is an int.
NUMBERS: dict[str, int | float | None] = {
    "max_epochs": 1,
    "seed": 0,
    "num_nodes": 1,
    "accumulate_grad_batches": 1,
    "data.num_workers": 0,
    "optimizer.batch_size": 1,
    "optimizer.lr": 0.0,
    "optimizer.classifier_lr": 0.0,
    "optimizer.weight_decay": 0.0,
    "scheduler.warmup_epochs": 0.0,
    "scheduler.warmup_start_lr": 0.0,
    "scheduler.min_lr": 0.0,
    "checkpoint.frequency": 1,
    "momentum.base_tau": 0.0,
    "momentum.final_tau": 0.0,
}
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
    """Refuses what neither a pretraining nor a linear config can have; fills empty blocks, in place.

    Raises:
        ConfigError: names the key, the value and what would be right.
    """
    for key in OPTIONAL_BLOCKS:
        block = OmegaConf.select(settings, key)
        if block is None and _has(settings, key):
            OmegaConf.update(settings, key, {})
        elif block is not None and not isinstance(block, DictConfig):
            raise ConfigError(f"{key}: {block!r} is not a mapping of settings.")
    for block in ("data", "backbone", "optimizer", "scheduler"):
        if not isinstance(settings.get(block), DictConfig):
            raise ConfigError(f"{block}: is missing from the config, or is not a mapping of settings.")
    _check_present(settings, (*REQUIRED, "optimizer.weight_decay", "scheduler.name"))
    for key, least in NUMBERS.items():
        if _has(settings, key):
            _check_number(key, OmegaConf.select(settings, key), least)
    _check_choice(settings, "optimizer.name", OPTIMIZERS)
    _check_choice(settings, "scheduler.name", SCHEDULERS)
    try:
        count = device_count(plain(settings.devices))
    except (TypeError, ValueError):
        count = 0
    if count < 1:
        raise ConfigError(f"devices: {settings.devices!r} is not allowed; give a number >= 1 or a list.")


def check_pretraining(host: Host, settings: DictConfig) -> None:
    """Refuses a pretraining config that cannot work.

    Raises:
        ConfigError: names the key, the value and what would be right.
    """
    _check_present(settings, REQUIRED_TO_PRETRAIN)
    check_common(settings)
    _check_spelling(settings)
    valid = host.trainable
    if settings.method not in valid:
        raise ConfigError(f"method: {unknown('method', str(settings.method), valid)}")
    _check_schema(host, settings, Pretraining)
    check_method_keys(host, settings.method, settings.get("method_kwargs") or {})
    if settings.optimizer.batch_size < 2:
        raise ConfigError("optimizer.batch_size: 1 is not allowed; batch normalization needs at least 2.")
    _check_crops(host, settings)
    build_terms(plain(settings.get("regularizers")))
    projector_settings(plain(settings.get("projector")))
    divergence_settings(plain(settings.get("divergence")))
    monitor = monitor_settings(plain(settings.get("monitor")))
    check_data(settings, need_val=monitor is not None and monitor["on"] == "val")


def check_linear(host: Host, settings: DictConfig) -> None:
    """Refuses a config of the linear evaluation that cannot work.

    Raises:
        ConfigError: names the key, the value and what would be right.
    """
    check_common(settings)
    _check_schema(host, settings, Linear)


def _check_schema(host: Host, settings: DictConfig, schema: type[Common]) -> None:
    try:
        content = plain(settings)
    except OmegaConfBaseException as error:
        reason = str(error.msg or error).strip().partition("\n")[0]
        raise ConfigError(f"{error.full_key or 'config'}: {reason}.") from error
    check_schema(content, schema, keys_of_host(host))
    name = str(content.get("name", ""))
    if "/" in name or name in (".", ".."):
        raise ConfigError(f"name: {name!r} is not allowed; it names files, so it must be without '/'.")
    folder = (content.get("checkpoint") or {}).get("dir")
    if folder and (content["checkpoint"] or {}).get("enabled"):
        check_writable("checkpoint.dir", Path(folder))


def _has(settings: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    block = OmegaConf.select(settings, parent) if parent else settings
    return isinstance(block, DictConfig) and name in block


def _check_present(settings: DictConfig, keys: Sequence[str]) -> None:
    for key in keys:
        if OmegaConf.select(settings, key, throw_on_missing=False) is None:
            raise ConfigError(f"{key}: is missing from the config.")


def _check_number(key: str, value: Any, least: int | float | None) -> None:
    whole = isinstance(least, int)
    number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or (least is not None and value < least):
        kind = "a whole number" if whole else "a number"
        raise ConfigError(f"{key}: {value!r} is not allowed; it must be {kind} >= {least}.")


def _check_choice(settings: DictConfig, key: str, valid: Collection[str]) -> None:
    value = OmegaConf.select(settings, key)
    if value not in valid:
        raise ConfigError(f"{key}: {unknown('name', str(value), valid)}")


def _check_spelling(settings: DictConfig) -> None:
    """A misspelt block of ours would otherwise be ignored in silence."""
    for key in map(str, settings):
        meant = difflib.get_close_matches(key, OWN_BLOCKS, n=1, cutoff=0.8)
        if meant and key not in OWN_BLOCKS:
            raise ConfigError(f"{key}: unknown block. Did you mean {meant[0]!r}?")


def _check_crops(host: Host, settings: DictConfig) -> None:
    try:
        sizes = [(view.crop_size, view.num_crops) for view in settings.augmentations]
        large = sum(count for size, count in sizes if size == sizes[0][0])
    except Exception as error:
        raise ConfigError(f"augmentations: cannot be read ({error}).") from error
    for size, count in sizes:
        _check_number("augmentations.crop_size", size, 1)
        _check_number("augmentations.num_crops", count, 1)
    method = base_name(settings.method)
    if method in ANY_CROPS or issubclass(host.methods[settings.method], host.Method):
        return
    if large != 2:
        raise ConfigError(f"augmentations: give {large} large crops; {settings.method} trains on 2.")


def check_data(settings: DictConfig, need_val: bool) -> None:
    """Refuses data that is not there.

    Raises:
        ConfigError: a missing path, an empty class folder, or a format that cannot work here.
    """
    data = settings.data
    _check_choice(settings, "data.dataset", DATASETS)
    data_format = data.get("format", "image_folder")
    if data_format not in FORMATS:
        raise ConfigError(f"data.format: {unknown('format', str(data_format), FORMATS)}")
    if data_format == "dali":
        if not torch.cuda.is_available():
            raise ConfigError("data.format: 'dali' needs a CUDA GPU and there is none; use image_folder.")
        if importlib.util.find_spec("nvidia") is None or importlib.util.find_spec("nvidia.dali") is None:
            raise ConfigError("data.format: 'dali' needs NVIDIA DALI: pip install 'solo-dimreg[dali]'.")
    classes = {}
    for key in ("train_path", "val_path"):
        path = data.get(key)
        if path is None:
            if need_val:
                raise ConfigError(f"data.{key}: is missing from the config; the evaluation needs it.")
        elif data.dataset in FOLDER_DATASETS:
            if data.get("no_labels", False) or data_format == "h5":
                _check_exists(f"data.{key}", Path(str(path)))
            else:
                classes[key] = check_image_folder(f"data.{key}", Path(str(path)))
                if data.get("check", False):
                    check_all_images(f"data.{key}", Path(str(path)))
    if len(classes) == 2 and classes["train_path"] != classes["val_path"]:
        odd = sorted(set(classes["train_path"]) ^ set(classes["val_path"]))
        raise ConfigError(
            f"data.val_path: {str(data.val_path)!r} and data.train_path must have the same class folders, "
            f"but only one of them has {', '.join(odd[:5])}."
        )


def check_all_images(key: str, path: Path) -> None:
    """Refuses a folder of which an image cannot be decoded.

    Raises:
        ConfigError: names the first of them, and how many there are.
    """
    faults = check_images(path).faults
    if faults:
        first, fault = next(iter(faults.items()))
        more = f" So are {len(faults) - 1} more: 'solo-dimreg data check {path}'." if len(faults) > 1 else ""
        raise ConfigError(f"{key}: {first} {fault}.{more}")


def _check_exists(key: str, path: Path) -> None:
    if not path.exists():
        raise ConfigError(f"{key}: {str(path)!r} does not exist (working directory {Path.cwd()}).")


def check_image_folder(key: str, path: Path) -> list[str]:
    """Refuses a folder that torchvision's ``ImageFolder`` could not read.

    Returns:
        The names of its classes.

    Raises:
        ConfigError: the path is missing or no folder, has no class folders, or has an empty one.
    """
    _check_exists(key, path)
    if not path.is_dir():
        raise ConfigError(f"{key}: {str(path)!r} is a file; it must be a folder with one folder per class.")
    classes = sorted(entry for entry in path.iterdir() if entry.is_dir())
    if not classes:
        raise ConfigError(f"{key}: {str(path)!r} has no class folders; put images into {path / '<class>'}/.")
    for folder in classes:
        if not any(file.suffix.lower() in IMAGE_SUFFIXES for file in folder.rglob("*")):
            raise ConfigError(f"{key}: the class folder {str(folder)!r} has no images; remove it or fill it.")
    return [folder.name for folder in classes]


def check_full_batch(settings: DictConfig, images: int) -> None:
    """Refuses a batch larger than the data: solo-learn drops incomplete batches and would train on nothing.

    Raises:
        ConfigError: names the batch size and the number of images.
    """
    share = images // (device_count(settings.devices) * settings.get("num_nodes", 1))
    if share < settings.optimizer.batch_size:
        raise ConfigError(
            f"optimizer.batch_size: {settings.optimizer.batch_size} is more than the {share} training images "
            "of a process, so that no batch would be full; make it smaller."
        )
