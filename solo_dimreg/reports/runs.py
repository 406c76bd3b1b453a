"""Read finished runs, without solo-learn, and compare their configurations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from solo_dimreg.errors import ConfigError
from solo_dimreg.files import no_run
from solo_dimreg.reports.plain_runs import plain_runs
from solo_dimreg.reports.run_files import ABSENT, RunRecord, flatten, read_configuration, read_curves, seed_of
from solo_dimreg.solo_learn.checkpoints import read_object
from solo_dimreg.training.results import read_evaluations

# The metrics of a run's result.json, and their labels in tables.
METRICS = {
    "linear_acc1": "linear top-1 %",
    "knn_acc1": "k-NN top-1 %",
    "effective_rank": "effective rank",
    "lid": "LID",
    "z_correlation": "correlation of the embeddings",
    "pretrain_seconds": "pretraining",
}


def read_runs(folder: Path) -> tuple[dict[str, Any], list[RunRecord]]:
    """Return the content of ``results.json`` and the runs in a folder.

    The key ``unread`` of the content has a line for each thing that could not be read.

    Args:
        folder: The folder of ``solo-dimreg benchmark``, or any folder with checkpoint folders of solo-learn
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
    records = plain_runs(folders, unread)
    if not records:
        raise no_run(folder, unread)
    return {"unread": unread}, records


def _benchmark_run(result: dict[str, Any], folders: Sequence[Path]) -> RunRecord:
    name = Path(str(result.get("checkpoint", ""))).parent.name
    last = next((each for each in folders if each.name == name), None)
    # All parts of an interrupted run are below the folder of its fingerprint.
    parts = [each for each in folders if last and last.parent.parent in each.parents]
    settings = flatten(read_configuration(last)) if last else {}
    evaluations = [each for part in parts for each in read_evaluations(part)]
    return RunRecord(result["method"], result, settings, read_curves(parts), seed_of(result), evaluations)


def _read_results(path: Path) -> dict[str, Any]:
    results = read_object(path, "the results of a benchmark")
    runs = results.get("runs")
    if not isinstance(runs, list) or not runs or not all(isinstance(run, dict) for run in runs):
        raise ConfigError(f"{path}: 'runs' must be a list of at least one run.")
    for number, run in enumerate(runs):
        if not isinstance(run.get("method"), str):
            raise ConfigError(f"{path}: runs[{number}].method must be a name.")
        if not isinstance(run.get("environment", {}), dict):
            raise ConfigError(f"{path}: runs[{number}].environment must be a JSON object.")
        values = [run[key] for key in METRICS if run.get(key) is not None]
        spectrum = run.get("spectrum", [1])
        if not isinstance(spectrum, list) or not spectrum or not all(map(_is_number, [*values, *spectrum])):
            raise ConfigError(f"{path}: the metrics of runs[{number}] must be numbers.")
    return results


def _is_number(value: Any) -> bool:
    # An integer may be too large for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e308


def by_method(records: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """Return the runs of each method, in the order of their appearance."""
    grouped: dict[str, list[RunRecord]] = {}
    for record in records:
        grouped.setdefault(record.method, []).append(record)
    return grouped


def differing_settings(records: Sequence[RunRecord]) -> dict[str, list[str]]:
    """Return the settings in which methods differ, with a value for every method of :func:`by_method`."""
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
