"""Refuse data that cannot be trained on, before anything is built."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from omegaconf import DictConfig

from solo_dimreg.datasets.check import (
    HIDDEN,
    check_images,
    check_plain,
    hidden_folders,
    misplaced,
    split_folders,
)
from solo_dimreg.datasets.downloads import DOWNLOADED, check_download_folder
from solo_dimreg.datasets.images import IMAGE_SUFFIXES
from solo_dimreg.errors import ConfigError, unknown

FOLDER_DATASETS = ("custom", "imagenet", "imagenet100")
DATASETS = (*DOWNLOADED, *FOLDER_DATASETS)
H5_DATASETS = ("imagenet", "imagenet100")
FORMATS = ("image_folder", "h5", "dali")
DALI = "which DALI, with its own decoder, would misread; data.format must be image_folder"


def check_data(settings: DictConfig, need_val: bool) -> None:
    """Raise a ConfigError for a missing path, an empty class folder, or a format that cannot work here."""
    data = settings.data
    if data.dataset not in DATASETS:
        raise ConfigError(f"data.dataset: {unknown('name', str(data.dataset), DATASETS)}")
    data_format = data.get("format", "image_folder")
    if data_format not in FORMATS:
        raise ConfigError(f"data.format: {unknown('format', str(data_format), FORMATS)}")
    if data_format == "h5" and data.dataset not in H5_DATASETS:
        raise ConfigError(
            f"data.format: 'h5' is not allowed for {data.dataset!r}; it must be image_folder, or "
            f"data.dataset one of {', '.join(H5_DATASETS)}."
        )
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
            if data_format == "h5":
                _check_exists(f"data.{key}", Path(str(path)))
                continue
            if not data.get("no_labels", False):
                classes[key] = check_image_folder(f"data.{key}", Path(str(path)))
            elif key == "train_path":  # nothing is validated without labels
                _check_flat_folder(f"data.{key}", Path(str(path)))
            if data.get("check", False) and (faults := check_images(Path(str(path))).faults):
                first, fault = next(iter(faults.items()))
                more = f" {len(faults) - 1} more have faults: 'solo-dimreg data check {path}'."
                raise ConfigError(f"data.{key}: {first} {fault}.{more if len(faults) > 1 else ''}")
        else:
            check_download_folder(data.dataset, f"data.{key}", Path(str(path)))
    if len(classes) == 2 and classes["train_path"] != classes["val_path"]:
        odd = sorted(set(classes["train_path"]) ^ set(classes["val_path"]))
        raise ConfigError(
            f"data.val_path: {str(data.val_path)!r} and data.train_path must have the same class folders, "
            f"but only one of them has {', '.join(odd[:5])}."
        )


def check_reader(settings: DictConfig) -> None:
    """Raise a ConfigError for a training image that DALI, which cannot use our loader, would misread."""
    data = settings.get("data") or {}
    if data.get("format") == "dali" and data.get("dataset") in FOLDER_DATASETS:
        check_plain("data.train_path", Path(str(data.get("train_path"))), DALI)


def _check_flat_folder(key: str, path: Path) -> None:
    """Refuse a folder with anything but images: without labels, solo-learn reads every file as an image."""
    _check_exists(key, path, "a folder of images")
    for each in path.iterdir():
        if each.suffix.lower() not in IMAGE_SUFFIXES or each.is_dir():
            raise ConfigError(
                f"{key}: {str(each)!r} is not an image; with data.no_labels, all files must be images."
            )


def _check_exists(key: str, path: Path, folder: str = "") -> None:
    if not path.exists():
        raise ConfigError(f"{key}: {str(path)!r} does not exist; it must be there (from {Path.cwd()}).")
    if folder and not path.is_dir():
        raise ConfigError(f"{key}: {str(path)!r} is a file; it must be {folder}.")


def check_image_folder(key: str, path: Path) -> list[str]:
    """Return the names of the classes in a folder that torchvision's ``ImageFolder`` can read.

    Raises:
        ConfigError: The path is missing or no folder, has no class folders, has an empty or a hidden class
            folder, or has splits in place of classes.
    """
    _check_exists(key, path, "a folder with one folder per class")
    odd = next(misplaced(path), None) or next(((each, HIDDEN) for each in hidden_folders(path)), None)
    if odd:
        raise ConfigError(f"{key}: {odd[0]} {odd[1]}; it must be removed.")
    classes = sorted(entry for entry in path.iterdir() if entry.is_dir())
    if not classes:
        flat = any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.iterdir())
        without = (
            ", or pretrain without labels: data.no_labels=True" if flat and key == "data.train_path" else ""
        )
        raise ConfigError(
            f"{key}: {str(path)!r} has no class folders; put images into {path / '<class>'}/{without}."
        )
    splits = split_folders(path)
    if sorted(splits) == classes:
        names = " and ".join(repr(each.name) for each in splits)
        wanted: dict[str, str] = {}
        for each in splits:
            kind = "train" if each.name.lower().startswith("train") else "val"
            wanted.setdefault(kind, f"{str(each)!r} as data.{kind}_path")
        raise ConfigError(
            f"{key}: {str(path)!r} holds the splits {names}, which would be read as classes; "
            f"give {' and '.join(wanted.values())}."
        )
    for folder in classes:
        if not any(file.suffix.lower() in IMAGE_SUFFIXES for file in folder.rglob("*")):
            raise ConfigError(f"{key}: the class folder {str(folder)!r} has no images; remove it or fill it.")
    return [folder.name for folder in classes]
