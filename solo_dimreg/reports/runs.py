"""Read finished runs, of a benchmark or from checkpoint folders, and compare their configurations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solo_dimreg.errors import ConfigError
from solo_dimreg.files import no_run
from solo_dimreg.reports.run_files import ABSENT, RunRecord, flatten, read_configuration, read_curves, seed_of
from solo_dimreg.solo_learn.checkpoints import read_object
from solo_dimreg.solo_learn.record import label_of, read_record
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
# A resumed run may become longer, and is still the same run.
MAY_CHANGE = ("max_epochs",)
# A label names at most this many settings in which a run differs from others of its name.
NAMED_SETTINGS = 2
# The keys of a run's record that a benchmark's result.json has too.
RECORDED = ("epochs", "steps", "data", "environment", "finished")


def read_runs(folder: Path) -> tuple[dict[str, Any], list[RunRecord]]:
    """Return the content of ``results.json`` and the runs in a folder.

    It is a folder of ``solo-dimreg benchmark``, or any with checkpoint folders of solo-learn below it. In the
    content, ``unread`` has a line for each thing that could not be read.

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


@dataclass(frozen=True)
class Folder:
    """A checkpoint folder and its content."""

    path: Path
    configuration: dict[str, Any]
    record: dict[str, Any]
    evaluations: list[dict[str, Any]]

    @property
    def setup(self) -> dict[str, str]:
        """Return the settings, flattened, without the seed."""
        return flatten(self.configuration)


def _plain_runs(paths: Sequence[Path], unread: list[str]) -> list[RunRecord]:
    """Return the runs in checkpoint folders; runs that differ only in their seeds share a label.

    A folder with a damaged file is left out, and ``unread`` gets a line.
    """
    folders = []
    for path in paths:
        try:
            configuration = read_configuration(path)
            read_curves([path])
            # solo-learn's linear probe leaves args.json too.
            if "pretrained_feature_extractor" not in configuration:
                folders.append(Folder(path, configuration, read_record(path), read_evaluations(path)))
        except ConfigError as error:
            unread.append(str(error).rstrip("."))
    runs = _joined(folders)
    labels = _labels([run[-1] for run in runs])
    return [
        RunRecord(
            label,
            {key: run[-1].record[key] for key in RECORDED if key in run[-1].record},
            run[-1].setup,
            read_curves([folder.path for folder in run]),
            seed_of(run[-1].configuration),
            [each for folder in run for each in folder.evaluations],
        )
        for run, label in zip(runs, labels, strict=True)
    ]


def _joined(folders: Sequence[Folder]) -> list[list[Folder]]:
    """Return the parts of each run in their order: folders of which each was resumed from the one before.

    Their names are matched, since runs may be moved, and only if nothing but the length differs.
    """
    named = {folder.path.name: folder for folder in folders}
    before: dict[Path, Folder] = {}

    def parts(folder: Folder) -> list[Folder]:
        earlier = before.get(folder.path)
        return [*(parts(earlier) if earlier else ()), folder]

    for folder in folders:
        checkpoint = Path(str(folder.record.get("resumed_from") or ""))
        other = named.get(checkpoint.parent.name)
        if other is not None and folder not in parts(other) and _same(other, folder):
            before[folder.path] = other
    continued = {other.path for other in before.values()}
    return [parts(folder) for folder in folders if folder.path not in continued]


def _same(first: Folder, second: Folder) -> bool:
    one, other = ({k: v for k, v in each.setup.items() if k not in MAY_CHANGE} for each in (first, second))
    return one == other and seed_of(first.configuration) == seed_of(second.configuration)


def _labels(folders: Sequence[Folder]) -> list[str]:
    """Return a label for each run: its name and, if runs of a name differ, the differences or the folder."""
    names = [label_of(folder.configuration) or folder.path.name for folder in folders]
    groups: dict[str, list[Folder]] = defaultdict(list)
    for name, folder in zip(names, folders, strict=True):
        groups[name].append(folder)
    labels = []
    for name, folder in zip(names, folders, strict=True):
        others = groups[name]
        keys = dict.fromkeys(key for each in others for key in each.setup)
        differing = [key for key in keys if len({each.setup.get(key) for each in others}) > 1]
        if 0 < len(differing) <= NAMED_SETTINGS:
            name += "".join(f", {key}={folder.setup.get(key, ABSENT)}" for key in differing)
            others = [each for each in others if each.setup == folder.setup]
            differing = []
        seeds = [seed_of(each.configuration) for each in others]
        if differing or len(set(map(str, seeds))) < len(seeds):
            name += f" {folder.path.name}"
        labels.append(name)
    return labels


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
