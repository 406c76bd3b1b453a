"""Composes a config, fits it to the machine, and refuses what cannot work before anything starts."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from solo_dimreg.errors import ConfigError, nearest, unknown
from solo_dimreg.hosts import Host, Run, device_count, plain
from solo_dimreg.hydra_plugin import config_root, counterpart
from solo_dimreg.regularization import build_terms

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
FOLDER_DATASETS = ("custom", "imagenet", "imagenet100")


def find_config_folder(stage: str, config_path: str) -> Path:
    """The folder that ``--config-path`` means: the user's own, or one of ours such as ``digits``.

    Args:
        stage: ``"pretrain"`` or ``"linear"``, where ours are looked up.
        config_path: A folder, absolute or relative to the working directory or to our configs.

    Raises:
        ConfigError: there is no such folder; names those that we ship.
    """
    root = config_root()
    for folder in (
        Path(config_path),
        root / stage / config_path,
        root / config_path,
        root.parent / config_path,
    ):
        if folder.is_dir():
            return folder.resolve()
    shipped = sorted(folder.name for folder in (root / stage).iterdir() if folder.is_dir())
    raise ConfigError(
        f"--config-path: {config_path!r} is no folder.{nearest(config_path, shipped)} "
        f"Give the folder of your configs, or one that we ship: {', '.join(shipped)}."
    )


def compose(stage: str, config_path: str, config_name: str, overrides: Sequence[str]) -> DictConfig:
    """Composes a config as solo-learn's scripts do, with our configs beside the user's.

    Raises:
        ConfigError: no such folder or config, or an override that Hydra refuses.
    """
    folder = find_config_folder(stage, config_path)
    folders = [folder, *([ours] if (ours := counterpart(folder)) else [])]
    names = {file.stem for each in folders for file in each.glob("*.yaml")}
    name = config_name.removesuffix(".yaml")
    if name not in names:
        raise ConfigError(f"--config-name: {unknown('config', config_name, names)} Looked in {folder}.")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder), version_base="1.2"):
            settings = hydra_compose(name, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{name}: {' '.join(str(error).split())}") from error
    OmegaConf.set_struct(settings, False)
    return settings


def fit_to_machine(settings: DictConfig) -> None:
    """Turns a config written for GPUs into one for this machine's CPU, in place, where there is no GPU."""
    if torch.cuda.is_available():
        return
    wanted = str(settings.get("accelerator", "auto"))
    if wanted != "cpu":
        if wanted != "auto":
            print(
                f"No GPU here: accelerator {wanted} becomes cpu, on one device, in 32 bits.", file=sys.stderr
            )
        settings.devices = "1"
    settings.accelerator = "cpu"
    settings.devices = str(device_count(settings.get("devices", 1)))
    settings.strategy = "ddp" if settings.devices != "1" else "auto"
    settings.precision = 32
    settings.sync_batchnorm = bool(settings.devices != "1" and settings.get("sync_batchnorm", False))


def check_pretraining(host: Host, settings: DictConfig) -> None:
    """Refuses a pretraining config that cannot work.

    Raises:
        ConfigError: names the key, the value and what would be right.
    """
    _check_present(settings, ("name", "method", "backbone.name", "max_epochs", "devices"))
    _check_present(settings, ("data.dataset", "data.train_path", "data.num_workers", "augmentations"))
    _check_present(
        settings, ("optimizer.name", "optimizer.batch_size", "optimizer.lr", "optimizer.weight_decay")
    )
    _check_present(settings, ("scheduler.name",))
    if settings.method not in host.methods:
        raise ConfigError(f"method: {unknown('method', str(settings.method), host.methods)}")
    build_terms(plain(settings.get("regularizers")))
    check_data(settings, need_val=False)


def _check_present(settings: DictConfig, keys: Sequence[str]) -> None:
    for key in keys:
        if OmegaConf.select(settings, key, throw_on_missing=False) is None:
            raise ConfigError(f"{key}: is missing from the config.")


def check_data(settings: DictConfig, need_val: bool) -> None:
    """Refuses data that is not there, before anything is built.

    Raises:
        ConfigError: a missing path, an empty class folder, or a format that cannot work here.
    """
    data_format = settings.data.get("format", "image_folder")
    if data_format not in ("image_folder", "h5", "dali"):
        raise ConfigError(
            f"data.format: {unknown('format', str(data_format), ('image_folder', 'h5', 'dali'))}"
        )
    if data_format == "dali":
        if not torch.cuda.is_available():
            raise ConfigError("data.format: 'dali' needs a CUDA GPU and there is none; use image_folder.")
        if importlib.util.find_spec("nvidia.dali") is None:
            raise ConfigError("data.format: 'dali' needs NVIDIA DALI: pip install 'solo-dimreg[dali]'.")
    for key in ("train_path", "val_path"):
        path = settings.data.get(key)
        if path is None:
            if need_val:
                raise ConfigError(f"data.{key}: is missing from the config.")
            continue
        if settings.data.dataset in FOLDER_DATASETS:
            unlabelled = bool(settings.data.get("no_labels", False))
            check_image_folder(f"data.{key}", Path(path), data_format == "h5", unlabelled)


def check_image_folder(key: str, path: Path, is_file: bool = False, unlabelled: bool = False) -> None:
    """Refuses a folder that torchvision's ``ImageFolder`` could not read.

    Raises:
        ConfigError: the path is missing, has no class folders, or has an empty one.
    """
    if not path.exists():
        raise ConfigError(f"{key}: {str(path)!r} does not exist (working directory {Path.cwd()}).")
    if is_file or unlabelled:
        return
    classes = sorted(entry for entry in path.iterdir() if entry.is_dir())
    if not classes:
        raise ConfigError(f"{key}: {str(path)!r} has no class folders; put images into {path / '<class>'}/.")
    for folder in classes:
        if not any(file.suffix.lower() in IMAGE_SUFFIXES for file in folder.rglob("*")):
            raise ConfigError(f"{key}: the class folder {str(folder)!r} has no images; remove it or fill it.")


def check_full_batch(settings: DictConfig, images: int) -> None:
    """Refuses a batch larger than the data: solo-learn drops incomplete batches and would train on nothing.

    Raises:
        ConfigError: names the batch size and the number of images.
    """
    if images < settings.optimizer.batch_size:
        raise ConfigError(
            f"optimizer.batch_size: {settings.optimizer.batch_size} is more than the {images} training "
            "images, so that no batch would be full; make it smaller."
        )


def evaluation_settings(settings: DictConfig, run: Run, overrides: Sequence[str] = ()) -> DictConfig:
    """A linear config with the data and the backbone of the pretraining run.

    Args:
        settings: A config in the format of solo-learn's ``main_linear.py``.
        run: The pretrained run.
        overrides: ``key=value`` of the command line; a key of ``data`` named there is left as it is.
    """
    given = {override.lstrip("+").partition("=")[0] for override in overrides}
    merged = OmegaConf.create(plain(settings))
    for key in ("dataset", "train_path", "val_path", "format", "num_workers"):
        value = run.settings.data.get(key)
        if f"data.{key}" not in given and value is not None:
            OmegaConf.update(merged, f"data.{key}", value, force_add=True)
    backbone = run.settings.backbone
    merged.backbone = {"name": backbone.name, "kwargs": plain(backbone.get("kwargs", {}))}
    merged.pretrain_method = run.settings.method
    merged.pretrained_feature_extractor = str(run.checkpoint)
    return merged
