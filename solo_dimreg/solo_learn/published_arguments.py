"""Translate the settings of a config into solo-learn 1.0.2's argparse arguments, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from solo_dimreg.config.values import plain
from solo_dimreg.errors import ConfigError
from solo_dimreg.solo_learn.backbone import find_backbone, input_size_kwargs
from solo_dimreg.solo_learn.base import CLASSES

PRECISIONS = {"16-mixed": 16, "bf16-mixed": "bf16", "16": 16, "32": 32, "32-true": 32}


def count_classes(dataset: str, train_path: str | None) -> int:
    """Return the number of classes of a named data set, or of class folders; 1 for images without labels."""
    if dataset in CLASSES:
        return CLASSES[dataset]
    return max(1, sum(entry.is_dir() for entry in Path(str(train_path)).iterdir()))


def transform_settings(dataset: str, augmentation: DictConfig) -> dict[str, Any]:
    """Return one entry of ``augmentations:`` as arguments of solo-learn 1.0.2."""
    if not augmentation.rrc.enabled:
        raise ConfigError(
            "augmentations.rrc.enabled: false needs the current solo-learn; 1.0.2 always crops."
        )
    if augmentation.get("equalization", {}).get("prob", 0):
        raise ConfigError("augmentations.equalization.prob: only 0 is allowed; 1.0.2 has no equalization.")
    jitter = augmentation.color_jitter
    settings = {
        "crop_size": augmentation.crop_size,
        "min_scale": augmentation.rrc.crop_min_scale,
        "max_scale": augmentation.rrc.crop_max_scale,
        "color_jitter_prob": jitter.prob,
        **{name: jitter.get(name, 0.0) for name in ("brightness", "contrast", "saturation", "hue")},
        "gray_scale_prob": augmentation.grayscale.prob,
        "gaussian_prob": augmentation.gaussian_blur.prob,
        "solarization_prob": augmentation.solarization.prob,
        "horizontal_flip_prob": augmentation.horizontal_flip.prob,
    }
    if dataset == "custom":
        from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

        settings["mean"] = plain(augmentation.get("mean", IMAGENET_DEFAULT_MEAN))
        settings["std"] = plain(augmentation.get("std", IMAGENET_DEFAULT_STD))
    return settings


def optimizer_settings(optimizer: DictConfig, scale: float) -> dict[str, Any]:
    """Return the optimizer's arguments from a config, with learning rates multiplied by ``scale``."""
    extra = dict(plain(optimizer.get("kwargs", {})) or {})
    name = optimizer.name
    lars = name == "lars"
    settings = {
        "optimizer": "sgd" if lars else name,
        "lars": lars,
        "batch_size": optimizer.batch_size,
        "lr": optimizer.lr * scale,
        "classifier_lr": optimizer.get("classifier_lr", 0.1) * scale,
        "weight_decay": optimizer.weight_decay,
        "eta_lars": extra.pop("eta", 1e-3),
        "grad_clip_lars": extra.pop("clip_lr", False),
        "exclude_bias_n_norm": extra.pop(
            "exclude_bias_n_norm", optimizer.get("exclude_bias_n_norm_wd", False)
        ),
    }
    if settings["optimizer"] == "sgd":
        extra.setdefault("momentum", 0.9)
    return {**settings, "extra_optimizer_args": extra}


def scheduler_settings(scheduler: DictConfig) -> dict[str, Any]:
    """Return the schedule's arguments from a config."""
    return {
        "scheduler": scheduler.name,
        "min_lr": scheduler.get("min_lr", 0.0),
        "warmup_start_lr": scheduler.get("warmup_start_lr", 3e-5),
        "warmup_epochs": scheduler.get("warmup_epochs", 10),
        "lr_decay_steps": plain(scheduler.get("lr_decay_steps", None)),
    }


def backbone_settings(settings: DictConfig) -> dict[str, Any]:
    """Return the backbone's arguments from a config."""
    name = settings.backbone.name
    kwargs = dict(plain(settings.backbone.get("kwargs", {})) or {})
    cifar = settings.data.dataset in ("cifar10", "cifar100")
    crop_size = settings.augmentations[0].crop_size
    if find_backbone(name) is not None:
        kwargs = {**input_size_kwargs(name, crop_size), **kwargs}
    elif "resnet" not in name:
        kwargs.setdefault("img_size", crop_size)
        if "vit" in name:
            kwargs.setdefault("patch_size", 16)
    return {"encoder": name, "backbone_args": {"cifar": cifar, **kwargs}}


def settings_of_script(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the config for an evaluation from the ``args.json`` of an argparse script of 1.0.2."""
    folder = Path(arguments["data_dir"])
    transforms = arguments["transform_kwargs"]
    first = transforms[0] if isinstance(transforms, list) else transforms
    return {
        "name": arguments.get("name"),
        "method": arguments["method"],
        "backbone": {"name": arguments["encoder"]},
        "data": {
            "dataset": arguments["dataset"],
            "train_path": str(folder / (arguments.get("train_dir") or f"{arguments['dataset']}/train")),
            "val_path": str(folder / (arguments.get("val_dir") or f"{arguments['dataset']}/val")),
            "num_workers": arguments.get("num_workers", 4),
            "no_labels": arguments.get("no_labels", False),
        },
        "augmentations": [
            {
                "crop_size": first["crop_size"],
                "mean": list(first.get("mean", (0.485, 0.456, 0.406))),
                "std": list(first.get("std", (0.228, 0.224, 0.225))),
            }
        ],
    }
