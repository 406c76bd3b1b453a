"""Composes a config and fits it to the machine."""

from __future__ import annotations

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
from yaml import YAMLError

from solo_dimreg.errors import ConfigError, nearest, unknown
from solo_dimreg.hosts import Run, device_count, plain
from solo_dimreg.hydra_plugin import config_root, counterpart, shipped_folders


def find_config_folder(stage: str, config_path: str) -> Path:
    """The folder that ``--config-path`` means: the user's own, or one of ours such as ``digits``.

    Args:
        stage: ``"pretrain"`` or ``"linear"``, where ours are looked up.
        config_path: A folder, absolute or relative to the working directory or to our configs.

    Raises:
        ConfigError: there is no such folder; names those that we ship.
    """
    root = config_root()
    candidates = (
        Path(config_path),
        root / stage / config_path,
        root / config_path,
        root.parent / config_path,
    )
    folders = [folder for folder in candidates if folder.is_dir()]
    # A folder of data may have the name of one of our config folders.
    with_configs = [folder for folder in folders if any(folder.glob("*.yaml"))]
    if folders:
        return (with_configs or folders)[0].resolve()
    shipped = shipped_folders(stage)
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
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise ConfigError(f"{name}: {' '.join(str(error).split())}") from error
    OmegaConf.set_struct(settings, False)
    return settings


def fit_to_machine(settings: DictConfig) -> None:
    """Turns a config written for GPUs into one for this machine's CPU, in place, where there is no GPU."""
    if torch.cuda.is_available():
        return
    wanted, devices = str(settings.get("accelerator", "auto")), device_count(settings.get("devices", 1))
    if wanted != "cpu" and (wanted != "auto" or devices > 1):
        print(f"No GPU here: accelerator {wanted} becomes cpu, on one device, in 32 bits.", file=sys.stderr)
        devices = 1
    elif (precision := settings.get("precision", 32)) not in (32, "32", "32-true"):
        print(f"No GPU here: precision {precision} becomes 32.", file=sys.stderr)
    settings.accelerator = "cpu"
    settings.devices = str(devices)
    settings.strategy = "ddp" if settings.devices != "1" else "auto"
    settings.precision = 32
    settings.sync_batchnorm = bool(settings.devices != "1" and settings.get("sync_batchnorm", False))


def quoted_override(key: str, path: Path) -> str:
    """An override of Hydra's, in which a quoted value may hold any character."""
    quoted = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{quoted}'"


def other_data(folder: Path) -> tuple[str, ...]:
    """Overrides that make a config read an image folder with train/ and val/.

    Raises:
        ConfigError: it has not both.
    """
    for split in ("train", "val"):
        if not (folder / split).is_dir():
            raise ConfigError(f"--data: {str(folder)!r} has no folder {split!r}; it must have train and val.")
    paths = [quoted_override(f"data.{split}_path", folder / split) for split in ("train", "val")]
    return ("data.dataset=custom", "++data.format=image_folder", *paths)


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
        if f"data.{key}" not in given:
            OmegaConf.update(merged, f"data.{key}", run.settings.data.get(key), force_add=True)
    if merged.data.format in (None, "dali"):
        merged.data.format = "image_folder"  # what the evaluation of a DALI run reads, too
    backbone = run.settings.backbone
    merged.backbone = {"name": backbone.name, "kwargs": plain(backbone.get("kwargs", {}))}
    merged.pretrain_method = run.settings.method
    merged.pretrained_feature_extractor = str(run.checkpoint)
    return merged
