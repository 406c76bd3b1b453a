"""Find the checkpoints of a run, and read them without ever running code from them."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import torch

from solo_dimreg.errors import ConfigError
from solo_dimreg.files import checkpoint_epoch


def read_checkpoint(checkpoint: Path) -> dict[str, Any]:
    """Return the content of a checkpoint of solo-learn's, with its weights in ``state_dict``.

    Raises:
        ConfigError: The file is damaged, or holds objects. SimSiam's and NNSiam's of a training without the
            add-on do, because solo-learn saves a function of their scheduler.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about another pickle protocol, in files that are refused anyway
            content = torch.load(checkpoint, map_location="cpu", weights_only=True)
        return {**content, "state_dict": dict(content["state_dict"])}
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{checkpoint}: holds more than weights and settings, which could run code and is not loaded. If "
            "you trust it, torch.load(..., weights_only=False) it and save it without 'lr_schedulers', for "
            "linear, knn and diagnose; it cannot be resumed then."
        ) from error
    except Exception as error:
        reason = first_line(error)[:200]
        named = type(error).__name__ + (f": {reason}" if reason else "")
        raise ConfigError(f"{checkpoint}: is not an intact checkpoint ({named}).") from error


def latest_resumable(checkpoints: Iterable[Path]) -> Path | None:
    """Return the latest checkpoint that can be resumed; print why each later one cannot."""
    for checkpoint in sorted(checkpoints, key=checkpoint_epoch, reverse=True):
        try:
            read_checkpoint(checkpoint)
            return checkpoint
        except ConfigError as error:
            print(f"Not resuming from {error}")
    return None


def read_object(path: Path, what: str, blocks: Collection[str] = ()) -> dict[str, Any]:
    """Return the JSON object in a file; raise a ConfigError if it or one of its ``blocks`` is no object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read ({first_line(error)}).") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(key, {}), dict) for key in blocks):
        raise ConfigError(f"{path}: must hold {what}, a JSON object.")
    return content


def generation_of(arguments: dict[str, Any]) -> str:
    """Return the generation of the solo-learn that wrote an ``args.json``."""
    return "current" if "backbone" in arguments else "published"


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, without its full stop."""
    return str(error).strip().partition("\n")[0].rstrip(".")
