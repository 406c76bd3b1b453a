"""Reads finished runs back, without solo-learn, and compares their figures and configurations."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from solo_dimreg.errors import ConfigError

# Figures of a run's result.json, and what the tables call them.
FIGURES = {
    "linear_acc1": "linear top-1 %",
    "knn_acc1": "k-NN top-1 %",
    "effective_rank": "effective rank",
    "lid": "LID",
    "z_correlation": "correlation of z",
    "pretrain_seconds": "pretraining",
}
# Columns of solo-learn's metrics.csv worth a curve, and what explanations.py calls them.
LOGGED = {"train_alpha_epoch": "adadim_alpha", "val_acc1": "val_acc1"}
# Settings that differ between any two runs and say nothing of how they train.
NOISE = (
    *("name", "seed", "wandb", "wandb_run_id", "checkpoint", "auto_resume", "resume_from_checkpoint"),
    "monitor",
)
ABSENT = "–"


@dataclass(frozen=True)
class RunRecord:
    """One run.

    Attributes:
        method: Name of the method, or of the row of the benchmark.
        result: What was measured at the end, as in ``result.json``; empty for a run that no benchmark made.
        settings: The configuration, flattened: ``optimizer.lr`` -> value as text.
        curves: Figures over the epochs, by name: epoch -> value.
        seed: The seed, None where it was not recorded.
    """

    method: str
    result: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    curves: dict[str, dict[int, float]] = field(default_factory=dict)
    seed: int | str | None = None


def read_runs(folder: Path) -> tuple[dict[str, Any], list[RunRecord]]:
    """The content of ``results.json`` or, as ``unread``, what could not be read; and the runs in a folder.

    Args:
        folder: What ``solo-dimreg benchmark`` wrote, or any folder with checkpoint folders of solo-learn's
            below it.

    Raises:
        ConfigError: there is no run, or a file that a benchmark wrote is damaged.
    """
    folders = sorted(file.parent for file in folder.rglob("args.json"))
    if (folder / "results.json").is_file():
        results = _read_results(folder / "results.json")
        names = {each.name for each in folders}
        lost = [
            f"settings and curves of {result['method']}: {name or 'its checkpoint'} has no args.json here"
            for result in results["runs"]
            if (name := Path(str(result.get("checkpoint", ""))).parent.name) not in names
        ]
        records = [_benchmark_run(result, folders) for result in results["runs"]]
        return {**results, "unread": lost}, records
    bare = {file.parent for file in folder.rglob("*.ckpt")} - set(folders)
    unread = [f"{each}: has no args.json, which solo-learn writes" for each in sorted(bare)]
    records = _plain_runs(folders, unread)
    if not records:
        raise ConfigError(
            f"{folder}: holds no run; give a folder that 'solo-dimreg benchmark' wrote (results.json) or one "
            "with checkpoint folders (args.json) below it. " + " ".join(unread)
        )
    return {"unread": unread}, records


def _benchmark_run(result: dict[str, Any], folders: Sequence[Path]) -> RunRecord:
    name = Path(str(result.get("checkpoint", ""))).parent.name
    last = next((each for each in folders if each.name == name), None)
    # All parts of an interrupted run are below the folder of its fingerprint.
    parts = [each for each in folders if last and last.parent.parent in each.parents]
    settings = flatten(_configuration(last)) if last else {}
    return RunRecord(result["method"], result, settings, read_curves(parts), _seed(result))


def parts_of(checkpoint: Path) -> list[Path]:
    """The folders of a benchmark's run, which has one for each of its parts if it was interrupted."""
    return sorted(file.parent for file in checkpoint.parents[2].rglob("args.json"))


def _plain_runs(folders: Sequence[Path], unread: list[str]) -> list[RunRecord]:
    """Runs of one name that differ in nothing but the seed are seeds of one method.

    Those with a damaged file are left out, and ``unread`` gets a line of each.
    """
    configurations, curves_of = [], {}
    for folder in folders:
        try:
            configurations.append((folder, _configuration(folder)))
            curves_of[folder] = read_curves([folder])
        except ConfigError as error:
            configurations = [each for each in configurations if each[0] != folder]
            unread.append(str(error).rstrip("."))
    # solo-learn's linear probe leaves args.json too.
    runs = [(folder, c) for folder, c in configurations if "pretrained_feature_extractor" not in c]
    setups: dict[str, set[str]] = {}
    seeds: Counter[tuple[str, Any]] = Counter()
    for folder, configuration in runs:
        name = _name(configuration, folder)
        setups.setdefault(name, set()).add(json.dumps(flatten(configuration), sort_keys=True))
        seeds[name, _seed(configuration)] += 1
    records = []
    for folder, configuration in runs:
        name = _name(configuration, folder)
        if len(setups[name]) > 1 or max(n for key, n in seeds.items() if key[0] == name) > 1:
            name = f"{name} {folder.name}"
        records.append(RunRecord(name, {}, flatten(configuration), curves_of[folder], _seed(configuration)))
    return records


def _name(configuration: Mapping[str, Any], folder: Path) -> str:
    return str(configuration.get("name") or configuration.get("method") or folder.name)


def _seed(content: Mapping[str, Any]) -> Any:
    """As it is, or as text where a file that is not ours holds something else."""
    seed = content.get("seed")
    return seed if seed is None or isinstance(seed, int) else str(seed)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read ({str(error).splitlines()[0]}).") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must hold a JSON object.")
    return content


def _configuration(folder: Path) -> dict[str, Any]:
    arguments = _read_object(folder / "args.json")
    # With the published solo-learn our config is kept whole beside its arguments.
    own = arguments.get("config")
    return own if isinstance(own, dict) else arguments


def _read_results(path: Path) -> dict[str, Any]:
    results = _read_object(path)
    runs = results.get("runs")
    if not isinstance(runs, list) or not runs or not all(isinstance(run, dict) for run in runs):
        raise ConfigError(f"{path}: 'runs' must be a list of at least one run.")
    for number, run in enumerate(runs):
        if not isinstance(run.get("method"), str):
            raise ConfigError(f"{path}: runs[{number}].method must be a name.")
        if not isinstance(run.get("environment", {}), dict):
            raise ConfigError(f"{path}: runs[{number}].environment must be a JSON object.")
        values = [run[key] for key in FIGURES if run.get(key) is not None]
        spectrum = run.get("spectrum", [1])
        if not isinstance(spectrum, list) or not spectrum or not all(map(_is_number, [*values, *spectrum])):
            raise ConfigError(f"{path}: runs[{number}] holds something else than numbers as its figures.")
    return results


def _is_number(value: Any) -> bool:
    # An integer may be too large for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e308


def read_curves(folders: Sequence[Path]) -> dict[str, dict[int, float]]:
    """Figures over the epochs from the ``metrics.csv`` and ``dimensionality.csv`` of a run.

    Args:
        folders: The checkpoint folders of the run; an epoch that was trained twice counts as in that which
            begins later.

    Raises:
        ConfigError: a file is damaged.
    """
    parts = []
    for folder in folders:
        curves: dict[str, dict[int, float]] = {}
        for name, columns in (("metrics.csv", LOGGED), ("dimensionality.csv", None)):
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
    """The curves of some columns, renamed, or of all that hold figures."""
    curves: dict[str, dict[int, float]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            if reader.fieldnames is None:  # Lightning was killed while it wrote the file anew
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
    """A configuration as ``outer.inner`` -> value, without what says nothing of how a run trains."""
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

    add("", {key: value for key, value in settings.items() if key not in NOISE})
    return flat


def by_method(records: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """The runs of each method, in the order of their appearance."""
    grouped: dict[str, list[RunRecord]] = {}
    for record in records:
        grouped.setdefault(record.method, []).append(record)
    return grouped


def differences(records: Sequence[RunRecord]) -> dict[str, list[str]]:
    """The settings in which methods differ, each with its value for every method of :func:`by_method`."""
    grouped = by_method(records)
    found = {}
    for key in sorted({key for record in records for key in record.settings}):
        values = [
            " / ".join(dict.fromkeys(run.settings.get(key, ABSENT) for run in runs))
            for runs in grouped.values()
        ]
        if len(set(values)) > 1:
            found[key] = values
    return found
