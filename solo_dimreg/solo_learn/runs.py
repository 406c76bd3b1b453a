"""Read pretraining runs from folders with a checkpoint and solo-learn's ``args.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from solo_dimreg.errors import ConfigError, DimregError, unknown
from solo_dimreg.files import checkpoint_epoch
from solo_dimreg.solo_learn.checkpoints import read_weights

if TYPE_CHECKING:
    from solo_dimreg.solo_learn.base import Host


@dataclass(frozen=True)
class Run:
    """A pretraining run, loaded from its folder."""

    folder: Path
    checkpoint: Path
    settings: DictConfig
    method: Any


def read_run(host: Host, path: Path) -> Run:
    """Return the pretraining run in a folder, also one of the other solo-learn.

    Args:
        host: The solo-learn in use.
        path: A checkpoint folder of solo-learn's, or a ``.ckpt`` file in it.

    Raises:
        ConfigError: There is no such run, or its weights do not fit its ``args.json``.
    """
    folder, checkpoint = find_checkpoint(path)
    arguments = _read_arguments(folder / "args.json")
    name = arguments.get("method")
    if name not in host.trainable:
        raise ConfigError(f"{folder / 'args.json'}: {unknown('method', str(name), host.trainable)}")
    made_by = "current" if "backbone" in arguments else "published"
    state = read_weights(checkpoint)
    try:
        settings = host.settings_of(arguments)
        if made_by == host.generation:
            method = host.rebuild(arguments)
        else:
            method = host.build_without_data(settings, len(state.get("classifier.bias", [0])))
    except DimregError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{folder / 'args.json'}: is not a record of a {name} that this solo-learn "
            f"({host.generation}) can read; the {made_by} one wrote it "
            f"({type(error).__name__}: {_first_line(error)})."
        ) from error
    try:
        method.load_state_dict({_renamed(key, host.generation): value for key, value in state.items()})
    except Exception as error:
        lines = str(error).strip().splitlines()
        reason = lines[1].strip() if len(lines) > 1 else _first_line(error)
        raise ConfigError(
            f"{checkpoint}: is not an intact checkpoint of the {name} that args.json beside it describes "
            f"({type(error).__name__}: {reason[:200]})."
        ) from error
    return Run(folder, checkpoint, settings, method.eval())


def _renamed(key: str, generation: str) -> str:
    """Return a key of a state dict with this solo-learn's name for the encoder."""
    theirs, ours = ("encoder", "backbone") if generation == "current" else ("backbone", "encoder")
    for prefix in ("", "momentum_"):
        if key.startswith(f"{prefix}{theirs}."):
            return prefix + ours + key.removeprefix(prefix + theirs)
    return key


def _read_arguments(path: Path) -> dict[str, Any]:
    try:
        arguments = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({_first_line(error)}).") from error
    if not isinstance(arguments, dict):
        raise ConfigError(f"{path}: must hold the settings of a run, a JSON object.")
    return arguments


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


def find_checkpoint(path: Path) -> tuple[Path, Path]:
    """Return the run's folder and its latest checkpoint.

    Args:
        path: A ``.ckpt`` file, its folder, or a folder with exactly one such folder below it.

    Raises:
        ConfigError: There is no run, or there are several.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such checkpoint; give a .ckpt file or the folder that holds it.")
    if path.is_file():
        folder, checkpoints = path.parent, [path]
    else:
        folders = sorted({file.parent for file in path.rglob("*.ckpt")})
        if len(folders) != 1:
            listed = ", ".join(str(f) for f in folders) or "none"
            raise ConfigError(f"{path}: must hold one run with checkpoints; found {listed}.")
        folder = folders[0]
        checkpoints = sorted(
            folder.glob("*.ckpt"), key=lambda file: (checkpoint_epoch(file), file.stat().st_mtime)
        )
    if not (folder / "args.json").is_file():
        raise ConfigError(f"{folder}: args.json is missing; solo-learn writes it beside its checkpoints.")
    return folder, checkpoints[-1]
