"""Write the record of a training, ``run.json``, beside its checkpoints: data, environment and results."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from solo_dimreg.config.values import plain
from solo_dimreg.solo_learn.base import NATIVE_SIZES
from solo_dimreg.solo_learn.checkpoints import read_object

RECORD = "run.json"


def label_of(configuration: Mapping[str, Any]) -> str:
    """Return the label of a run: its method, and the name of its config if that differs.

    ``method=ldreg_byol`` on the config ``byol-digits`` gives ``ldreg_byol (byol-digits)``.
    """
    method, name = (str(configuration.get(key) or "") for key in ("method", "name"))
    if not method or re.match(rf"{re.escape(method)}(?![A-Za-z0-9])", name):
        return name
    return f"{method} ({name})" if name else method


def counted(count: int, what: str) -> str:
    """Return a number with its noun: ``1 epoch``, ``2 epochs``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def now() -> str:
    """Return the current time in the format of the records."""
    return f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"


def begin_record(generation: str, trainer: Any, config: DictConfig | None) -> dict[str, Any]:
    """Return the record of a training that starts: environment, data and the checkpoint it continues."""
    data = _data_of(config)
    return {
        "started": now(),
        "resumed_from": str(trainer.ckpt_path) if trainer.ckpt_path else None,
        "data": {
            **{key: data.get(key) for key in ("dataset", "train_path", "val_path")},
            "train_images": count_images(trainer.train_dataloader),
            "val_images": count_images(trainer.val_dataloaders),
        },
        "environment": describe_environment(generation, trainer.strategy.root_device, trainer.world_size),
    }


def _data_of(config: DictConfig | None) -> dict[str, Any]:
    return {} if config is None else plain(config.get("data")) or {}


def end_record(trainer: Any, config: DictConfig | None, raises: bool) -> dict[str, Any]:
    """Return the results of a training: epochs, steps, first and last effective rank, online accuracy.

    The list of effective ranks has one number after a single look of the monitor, and is None without any.
    Our own command ``raises`` errors, and validates at the resolution of the training.
    """
    histories = [getattr(callback, "history", None) for callback in trainer.callbacks]
    rows = next((history for history in histories if isinstance(history, list) and history), [])
    ranks = [float(row["effective_rank"]) for row in rows if "effective_rank" in row]
    return {
        "finished": now(),
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "effective_rank": [*ranks[:1], *ranks[1:][-1:]] or None,
        "online_accuracy": online_accuracy(trainer, config, raises),
    }


def count_images(loaders: Any) -> int | None:
    """Return the number of images in a loader or several; None if they do not tell, as DALI's."""
    loaders = getattr(loaders, "loaders", loaders)  # Lightning 1.6 wraps the training loaders
    each = loaders if isinstance(loaders, list | tuple) else [loaders]
    counts = [len(loader.dataset) for loader in each if hasattr(loader, "dataset")]
    return sum(counts) if counts else None


def online_accuracy(trainer: Any, config: DictConfig | None, raises: bool) -> dict[str, Any] | None:
    """Return the online classifier's last top-1 accuracy in percent and its images; None without labels.

    The validation's accuracy is used, unless the validation has another resolution than the training.
    """
    if _data_of(config).get("no_labels"):
        return None
    metrics, images = trainer.callback_metrics, {"train_acc1": "training"}
    if raises or config is None or evaluated_as_trained(config):
        images = {"val_acc1": "validation", **images}
    name = next((name for name in images if name in metrics), None)
    return {"percent": float(metrics[name]), "images": images[name]} if name else None


def evaluated_as_trained(settings: Any) -> bool:
    """Return whether solo-learn's own evaluation has the training's image size and normalization."""
    view = settings["augmentations"][0]
    native = NATIVE_SIZES.get(settings["data"]["dataset"])
    return native == view.get("crop_size") and view.get("mean") is None


def read_record(folder: Path) -> dict[str, Any]:
    """Return the record of the run in a folder, empty without one; raise a ConfigError for a damaged file."""
    path = folder / RECORD
    return read_object(path, "the record of a run", ("data", "environment")) if path.is_file() else {}


def version_of(distribution: str) -> str | None:
    """Return the version of an installed distribution; return None if it is not installed."""
    if distribution == "solo-dimreg":  # the running one, which may be a checkout beside an older install
        return sys.modules["solo_dimreg"].__version__
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def describe_environment(generation: str, device: torch.device | str, devices: int = 1) -> dict[str, str]:
    """Return the versions that matter and the device that computed, ``devices`` of them in all, as text."""
    # A clone on the path has no version; the published one may be installed beside it.
    version = version_of("solo-learn") if generation == "published" else None
    device = torch.device(device)
    if device.type == "cuda":
        named = f"{devices} x {torch.cuda.get_device_name(device)}"
    else:
        named = f"{device.type.upper()}, {counted(torch.get_num_threads(), 'thread')}"
        named = named if devices == 1 else f"{devices} processes, each {named}"
    return {
        "solo-learn": " ".join(filter(None, (generation, version))),
        "solo-dimreg": str(version_of("solo-dimreg")),
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "timm": version_of("timm") or "not installed",
        "device": named,
    }
