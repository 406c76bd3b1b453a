"""Read runs from checkpoint folders, without a benchmark: join the parts of a run, and label each run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solo_dimreg.errors import ConfigError
from solo_dimreg.reports.run_files import (
    ABSENT,
    RunRecord,
    flatten,
    read_configuration,
    read_curves,
    seed_of,
)
from solo_dimreg.solo_learn.record import label_of, read_record
from solo_dimreg.training.results import read_evaluations

# A resumed run may become longer, and is still the same run.
MAY_CHANGE = ("max_epochs",)
# A label names at most this many settings in which a run differs from others of its name.
NAMED_SETTINGS = 2
# The keys of a run's record that a benchmark's result.json has too.
RECORDED = ("epochs", "steps", "data", "environment", "finished")


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


def plain_runs(paths: Sequence[Path], unread: list[str]) -> list[RunRecord]:
    """Return the runs in checkpoint folders; runs that differ only in their seeds share a label.

    Args:
        unread: A list that gets a line for each folder with a damaged file, which is left out.
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
    """Return the parts of each run in their order; a folder that was resumed from another one continues it.

    The folders are matched by their names, since runs may be moved, and only if nothing but the length
    differs.
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
