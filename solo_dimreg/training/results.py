"""Save the result of an evaluation as a JSON file beside the run's checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from solo_dimreg.config.values import device_count, plain
from solo_dimreg.errors import ConfigError, warn
from solo_dimreg.files import checkpoint_epoch, write_json
from solo_dimreg.solo_learn import Host, Run
from solo_dimreg.solo_learn.checkpoints import read_object
from solo_dimreg.solo_learn.record import describe_environment, now

KINDS = ("linear", "knn")
# The settings of a linear config that tell two probes of the same run apart.
OF_PROBE = (
    *("max_epochs", "optimizer", "scheduler", "classifier", "label_smoothing", "precision"),
    *("limit_train_batches", "limit_val_batches", "accumulate_grad_batches"),
)


def probe_settings(settings: DictConfig) -> dict[str, Any]:
    """Return the settings of a linear config that affect its result."""
    return {key: plain(settings[key]) for key in OF_PROBE if settings.get(key) is not None}


def save_evaluation(
    host: Host,
    run: Run,
    kind: str,
    settings: Mapping[str, Any],
    config: DictConfig,
    result: Mapping[str, Any],
    device: str,
) -> Path | None:
    """Write the result of an evaluation beside the checkpoint; return its path, or warn and return None.

    The result of the same evaluation is replaced. An evaluation with other settings, images, seed or
    checkpoint has its own file.

    Args:
        kind: ``"linear"`` or ``"knn"``.
        settings: The settings that affect the result.
        config: Its ``data``, ``devices`` and, for the probe, ``seed``.
        result: The accuracies, and what they are based on.
    """
    data = {key: config.data.get(key) for key in ("dataset", "train_path", "val_path")}
    asked = {
        "kind": kind,
        "checkpoint": run.checkpoint.name,
        "resolution": run.settings.augmentations[0].crop_size,
        "settings": dict(settings),
        "data": data,
        "seed": config.get("seed", 5) if kind == "linear" else None,
    }
    name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]
    path = run.folder / f"{kind}-{name}.json"
    devices = device_count(config.get("devices", 1)) if kind == "linear" else 1
    content = {
        **asked,
        "pretrained_epochs": checkpoint_epoch(run.checkpoint) + 1,
        **result,
        "environment": describe_environment(host.generation, device, devices),
        "finished": now(),
    }
    try:
        write_json(path, content)
    except OSError as error:
        warn(f"{path}: the result cannot be kept beside the checkpoint ({error}); --out writes it elsewhere.")
        return None
    return path


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """Return a run's results, linear first, then by time; raise a ConfigError for a damaged file."""
    found = []
    for path in sorted(path for kind in KINDS for path in folder.glob(f"{kind}-*.json")):
        content = read_object(path, "the result of an evaluation", ("settings", "data", "environment"))
        accuracies = [content.get("acc1"), content.get("acc5", 0.0)]
        if content.get("kind") not in KINDS or not all(isinstance(each, int | float) for each in accuracies):
            raise ConfigError(f"{path}: must hold the result of an evaluation.")
        found.append(content)
    return sorted(found, key=lambda each: (KINDS.index(each["kind"]), str(each.get("finished"))))
