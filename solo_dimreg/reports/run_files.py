"""Read the files in the checkpoint folder of a run, without solo-learn."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from solo_dimreg.errors import ConfigError
from solo_dimreg.solo_learn.checkpoints import read_object

# The columns of solo-learn's metrics.csv that are drawn, and their names in explanations.py.
LOGGED = {"train_alpha_epoch": "adadim_alpha", "val_acc1": "val_acc1"}
# Settings that differ between any two runs and do not change how they train.
NOT_COMPARED = (
    *("name", "seed", "wandb", "wandb_run_id", "checkpoint", "auto_resume", "resume_from_checkpoint"),
    "monitor",
)
ABSENT = "–"


@dataclass(frozen=True)
class RunRecord:
    """One run.

    Attributes:
        method: The name of the method, or of the row of the benchmark.
        result: The results at the end, as in ``result.json``; without a benchmark, the run's own record.
        settings: The configuration, flattened: ``optimizer.lr`` -> value as text.
        curves: The metrics over the epochs, by name: epoch -> value.
        seed: The seed; None if it was not recorded.
        evaluations: The results that ``linear`` and ``knn`` wrote beside the checkpoints.
    """

    method: str
    result: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    curves: dict[str, dict[int, float]] = field(default_factory=dict)
    seed: int | str | None = None
    evaluations: list[dict[str, Any]] = field(default_factory=list)


def parts_of(checkpoint: Path) -> list[Path]:
    """Return the folders of a benchmark's run, one for each part if the run was interrupted."""
    return sorted(file.parent for file in checkpoint.parents[2].rglob("args.json"))


def seed_of(content: Mapping[str, Any]) -> Any:
    """Return the seed; it becomes text if a file of another program holds something else than a number."""
    seed = content.get("seed")
    return seed if seed is None or isinstance(seed, int) else str(seed)


def read_configuration(folder: Path) -> dict[str, Any]:
    """Return the config of the run in a checkpoint folder; raise a ConfigError if it is damaged."""
    arguments = read_object(folder / "args.json", "the settings of a run")
    # With the published solo-learn, our whole config is kept beside its arguments.
    own = arguments.get("config")
    return own if isinstance(own, dict) else arguments


def read_curves(folders: Sequence[Path], logged: Mapping[str, str] = LOGGED) -> dict[str, dict[int, float]]:
    """Return the metrics over the epochs from the ``metrics.csv`` and ``dimensionality.csv`` of a run.

    If an epoch is in two folders, the one that begins later counts. Of ``metrics.csv`` the columns in
    ``logged`` are read, and renamed. A damaged file raises a ConfigError.
    """
    parts = []
    for folder in folders:
        curves: dict[str, dict[int, float]] = {}
        for name, columns in (("metrics.csv", logged), ("dimensionality.csv", None)):
            if (folder / name).is_file():
                curves.update(_read_table(folder / name, columns))
        parts.append(curves)
    parts.sort(key=lambda part: min((epoch for curve in part.values() for epoch in curve), default=0))
    merged: dict[str, dict[int, float]] = {}
    for part in parts:
        for name, curve in part.items():
            merged.setdefault(name, {}).update(curve)
    return merged


def _read_table(path: Path, columns: Mapping[str, str] | None) -> dict[str, dict[int, float]]:
    """Return the curves of the given columns, renamed, or of all columns with metrics."""
    curves: dict[str, dict[int, float]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            if reader.fieldnames is None:  # Lightning was killed while it rewrote the file
                return curves
            if "epoch" not in reader.fieldnames:
                raise ValueError("no column 'epoch'")
            names = columns or {name: name for name in reader.fieldnames if name not in ("epoch", "step")}
            for row in reader:
                for column, name in names.items():
                    if row.get(column):
                        curves.setdefault(name, {})[int(float(row["epoch"]))] = float(row[column])
    except (OSError, ValueError, TypeError, OverflowError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read ({error}).") from error
    return curves


def flatten(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return a configuration as ``outer.inner`` -> value, without settings that do not change a training."""
    flat: dict[str, str] = {}

    def add(key: str, value: Any) -> None:
        if isinstance(value, Mapping) and value:
            for name, inner in value.items():
                add(f"{key}.{name}" if key else str(name), inner)
        elif isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
            for number, inner in enumerate(value):
                add(f"{key}.{number}", inner)
        elif value not in (None, {}):
            flat[key] = str(value)

    add("", {key: value for key, value in settings.items() if key not in NOT_COMPARED})
    return flat
