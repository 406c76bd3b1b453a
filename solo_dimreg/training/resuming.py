"""Find the checkpoint from which a training resumes, and say where it differs from the config."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from solo_dimreg.config.schema import Pretraining
from solo_dimreg.config.values import plain
from solo_dimreg.errors import ConfigError, warn
from solo_dimreg.files import checkpoint_epoch
from solo_dimreg.solo_learn import Host
from solo_dimreg.solo_learn.checkpoints import generation_of, latest_resumable, read_checkpoint

# The keys that identify a run: auto-resume continues a run in which all of them are the same. They are
# solo-learn's keys without max_epochs, because a run can be prolonged, and further keys that it leaves out.
IDENTITY = (
    *("name", "method", "backbone", "method_kwargs", "projector", "regularizers", "data.dataset", "seed"),
    *("optimizer.name", "optimizer.batch_size", "optimizer.lr", "optimizer.weight_decay"),
    *("wandb.project", "wandb.entity"),
)
# The keys that decide how a training continues from a given checkpoint, besides its length.
COURSE = (
    *("method", "backbone", "method_kwargs", "projector", "regularizers", "momentum", "optimizer"),
    *("scheduler", "augmentations", "data.dataset", "data.train_path", "data.fraction", "data.no_labels"),
    *("accumulate_grad_batches", "max_steps", "precision", "seed"),
)
SEED = 5  # solo-learn's default
# The errors for an args.json of a killed run or of another program.
UNREADABLE = (OSError, LookupError, ValueError, TypeError, AttributeError)
SHOWN = 6  # settings that a line names


def resume_from(host: Host, settings: Pretraining, arguments: Any, root: Path) -> Path | None:
    """Return the checkpoint that a config names or that auto-resume finds, or None.

    The host's arguments are those after the method is built; ``root`` contains the runs of the method.

    Raises:
        ConfigError: The checkpoint that the config names cannot be resumed with it.
    """
    if settings.resume_from_checkpoint is not None:
        given = Path(settings.resume_from_checkpoint)
        check_checkpoint(given)
        compare_given(host, given, arguments)
        return given
    if not (settings.auto_resume.enabled and settings.checkpoint.enabled):
        return None
    found = find_latest(host, arguments, root)
    if found:
        print(f"Resuming from {found}")
    return found


def check_checkpoint(checkpoint: Path) -> None:
    """Raise a ConfigError for a damaged or unsafe checkpoint, with the one before it in the same folder."""
    try:
        read_checkpoint(checkpoint)
    except ConfigError as error:
        epoch = checkpoint_epoch(checkpoint)
        others = [path for path in checkpoint.parent.glob("*.ckpt") if checkpoint_epoch(path) < epoch]
        before = max(others, key=checkpoint_epoch, default=None)
        hint = f" The previous checkpoint is {before}." if before else ""
        raise ConfigError(f"resume_from_checkpoint: {error}{hint}") from error


def compare_given(host: Host, checkpoint: Path, arguments: Any) -> None:
    """Warn in one line which settings differ from those of a given checkpoint.

    Raises:
        ConfigError: The training cannot continue with a setting that differs.
    """
    now = _settings(host, arguments)
    _check_length(checkpoint, now["max_epochs"])
    try:
        before = _settings_beside(host, checkpoint.parent, now)
    except UNREADABLE:
        return  # without its args.json, or from another program
    if before is None:
        return
    found = _differences(before, now, COURSE)
    if "optimizer.name" in found:
        old, new = found["optimizer.name"]
        raise ConfigError(
            f"optimizer.name: {new!r} cannot continue with the state of the checkpoint's optimizer; to "
            f"resume {checkpoint} it must be {old!r}."
        )
    seed = found.pop("seed", None)
    parts = [f"{_shown(found)} apply from here on"] if found else []
    if seed:
        parts.append(f"seed ({seed[0]}, now {seed[1]}) has no effect, the random state is the checkpoint's")
    if parts:
        warn(f"{checkpoint}: was trained with other settings than the config's: {'; '.join(parts)}.")


def _check_length(checkpoint: Path, epochs: int) -> None:
    done = checkpoint_epoch(checkpoint) + 1
    if done > epochs:
        raise ConfigError(
            f"max_epochs: {epochs} is fewer than the {done} epochs that {checkpoint} has been trained; it "
            f"must be at least {done}, or resume an earlier checkpoint."
        )


def find_latest(host: Host, arguments: Any, root: Path) -> Path | None:
    """Return the latest undamaged checkpoint of the same run, or None; print why none is used.

    solo-learn itself looks at one checkpoint of the newest folder only, and requires the same number of
    epochs.
    """
    now = _settings(host, arguments)
    hours = (now.get("auto_resume") or {}).get("max_hours", 36)
    others: list[tuple[int, str]] = []  # the number of differences of a run, and the line about them
    for folder in _newest_first(root, hours):
        try:
            before = _settings_beside(host, folder, now)
        except UNREADABLE as error:
            print(f"Not resuming from {folder}: it cannot be read ({error}).")
            continue
        if before is None:
            continue
        if found := _differences(before, now, IDENTITY):
            others.append((len(found), f"{folder}: it differs in {_shown(found)}"))
        elif checkpoint := latest_resumable(folder.glob("*.ckpt")):
            try:
                _check_length(checkpoint, now["max_epochs"])
                return checkpoint
            except ConfigError as error:
                others.append((0, f"{folder}: {str(error).rstrip('.')}"))
    if others:
        _, why = min(others, key=lambda other: other[0])  # the newest of the most similar
        print(f"Not resuming from {why}. The training starts anew.")
    return None


def _newest_first(root: Path, hours: float) -> list[Path]:
    """Return the folders with checkpoints of at most this age, the newest first."""
    newest: dict[Path, float] = {}
    for path in root.rglob("*.ckpt"):
        with suppress(OSError):  # another run has just removed it, or it is a link to nothing
            newest[path.parent] = max(path.stat().st_ctime, newest.get(path.parent, 0.0))
    oldest = time.time() - 3600 * hours
    folders = [folder for folder, changed in newest.items() if changed > oldest]
    return sorted(folders, key=lambda folder: newest[folder], reverse=True)


def _settings(host: Host, arguments: Any) -> dict[str, Any]:
    """Return the settings of a run in the form in which ``args.json`` returns them."""
    return json.loads(json.dumps(plain(host.settings_of(plain(arguments))), default=str))


def _settings_beside(host: Host, folder: Path, now: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the settings of a run without the remedy of ``now``; None if the other solo-learn wrote them."""
    arguments = json.loads((folder / "args.json").read_text())
    if generation_of(arguments) != host.generation:
        return None
    before = plain(host.settings_of(arguments))
    # The alarm of the run has added its remedy; the checkpoint knows from which epoch on it takes part.
    remedy = ((now.get("monitor") or {}).get("alarm") or {}).get("remedy") or {}
    terms = before.get("regularizers") or {}
    return {**before, "regularizers": {name: term for name, term in terms.items() if name not in remedy}}


def _differences(
    before: Mapping[str, Any], now: Mapping[str, Any], keys: Sequence[str]
) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ, as ``{key: (old, new)}`` with dotted keys; an absent one is None.

    A key is compared with all keys below it.
    """
    old, new = ({"seed": SEED, **dict(_leaves(settings, keys))} for settings in (before, now))
    pairs = {key: (old.get(key), new.get(key)) for key in dict.fromkeys((*old, *new))}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _leaves(settings: Mapping[str, Any], keys: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for key in keys:
        value: Any = settings
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if isinstance(value, Mapping):
            for name, inner in _leaves(value, list(value)):
                yield f"{key}.{name}", inner
        elif value is not None:
            yield key, value


def _shown(found: Mapping[str, tuple[Any, Any]]) -> str:
    """Return the settings with their old and new values as text; for lists only the name."""
    parts = [
        key if any(isinstance(value, list) for value in pair) else f"{key} ({pair[0]}, now {pair[1]})"
        for key, pair in found.items()
    ]
    more = [f"{len(parts) - SHOWN} more"] if len(parts) > SHOWN else []
    return ", ".join((*parts[:SHOWN], *more))
