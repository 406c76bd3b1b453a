"""Diagnose all checkpoints of a run, and say how the dimensions change over the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from solo_dimreg.diagnosis.diagnose import Diagnosis
from solo_dimreg.diagnosis.layer_profile import COLLAPSE, LOSS, LayerProfile, percent_of
from solo_dimreg.errors import ConfigError
from solo_dimreg.files import checkpoint_epoch, find_checkpoint
from solo_dimreg.metrics.intervals import interval, with_interval
from solo_dimreg.metrics.numbers import Space
from solo_dimreg.metrics.registry import METRICS

# The metrics of the table and the figure.
SHOWN = ("effective_rank", "lid", "mean_share", "off_diagonal_correlation")


def checkpoints_of(given: str) -> list[Path]:
    """Return the checkpoints of a run by their epochs; raise a ConfigError if there are fewer than two."""
    path = Path(given).expanduser()
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise ConfigError(f"--checkpoints: {given!r} {what}; give the folder of a run.")
    folder, _ = find_checkpoint(path)
    found = sorted(folder.glob("*.ckpt"), key=lambda file: (checkpoint_epoch(file), file.stat().st_mtime))
    if len(found) < 2:
        raise ConfigError(
            f"--checkpoints: {str(folder)!r} has one checkpoint only, {found[0].name}; set "
            "checkpoint.keep_prev=true and checkpoint.frequency in the training to keep more."
        )
    return found


@dataclass(frozen=True)
class Checkpoint:
    """The diagnosis of one checkpoint, without its network, distances and correlations."""

    name: str
    epoch: int
    verdict: str
    spaces: dict[str, Space]
    layers: LayerProfile | None

    @classmethod
    def of(cls, path: Path, diagnosis: Diagnosis) -> Checkpoint:
        """Return the record of a checkpoint's diagnosis."""
        none = torch.empty(0)
        spaces = {
            name: replace(each, distances=none, correlation=none) for name, each in diagnosis.spaces.items()
        }
        return cls(path.name, checkpoint_epoch(path), diagnosis.verdict.kind, spaces, diagnosis.layers)


@dataclass(frozen=True)
class Course:
    """The checkpoints of a run, in their order."""

    checkpoints: Sequence[Checkpoint]

    @property
    def sentence(self) -> str:
        """Return what becomes of the effective rank of the features after its peak."""
        ranks = [each.spaces["features"].effective_rank for each in self.checkpoints]
        peak, last = max(range(len(ranks)), key=ranks.__getitem__), len(ranks) - 1
        kept = ranks[last] / ranks[peak]

        def at(place: int) -> str:
            return f"{ranks[place]:.1f} at epoch {self.checkpoints[place].epoch}"

        if kept > LOSS and peak != last and self._differs(peak, last):
            return (
                f"The effective rank of the features fell from {at(peak)} to {at(last)} ({kept:.0%} of its "
                "peak is left), which is no collapse by our limits."
            )
        if kept > LOSS and peak == last and self._differs(0, last):
            return f"The effective rank of the features rose from {at(0)} to {at(last)}."
        if kept > LOSS:
            between = f", {at(peak)}" if peak not in (0, last) else ""
            return f"The features keep their effective rank: {at(0)}{between}, {at(last)}."
        steepest = min(pairwise(range(peak, last + 1)), key=lambda pair: ranks[pair[1]] / ranks[pair[0]])
        lost = "collapse" if kept <= COLLAPSE else f"lose {1 - kept:.0%} of their effective rank"
        return (
            f"The features {lost} after epoch {self.checkpoints[peak].epoch}: effective rank {at(peak)} and "
            f"{at(last)}; it falls most from {at(steepest[0])} to {at(steepest[1])}."
        )

    def _differs(self, place: int, other: int) -> bool:
        """Return whether the ranks of two checkpoints, on the same images, differ beyond their interval."""
        one, two = (self.checkpoints[i].spaces["features"] for i in (place, other))
        if not {"effective_rank"} <= one.deviations.keys() & two.deviations.keys():
            return False
        moved = two.deviations["effective_rank"] - one.deviations["effective_rank"]
        around = interval(two.effective_rank - one.effective_rank, moved)
        return around is not None and not around[0] <= 0 <= around[1]

    @property
    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return header and rows of the metrics as text, a row for each checkpoint."""
        header = ["epoch", "verdict", *(METRICS[name].label for name in SHOWN), "of attainable (%)"]
        rows = []
        for each in self.checkpoints:
            features, *embeddings = each.spaces.values()
            share = percent_of(
                features.effective_rank, features.interval("effective_rank"), features.attainable
            )
            cells = [*(_text(name, features) for name in SHOWN), share]
            cells += [_text("effective_rank", space) for space in embeddings]
            rows.append([str(each.epoch), each.verdict, *cells])
        return header + ["effective rank of embeddings"] * (len(rows[0]) - len(header)), rows

    @property
    def curves(self) -> dict[str, dict[str, list[dict[int, float]]]]:
        """Return the curves of the metrics over the epochs, by label and then by kind."""
        panels: dict[str, dict[str, list[dict[int, float]]]] = {}
        for name in SHOWN:
            for kind in self.checkpoints[0].spaces:
                values = {each.epoch: each.spaces[kind].numbers[name] for each in self.checkpoints}
                if curve := {epoch: value for epoch, value in values.items() if value is not None}:
                    panels.setdefault(METRICS[name].label, {})[kind] = [curve]
        return panels

    def as_dict(self) -> dict[str, Any]:
        """Return the sentence and all metrics of each checkpoint for JSON."""
        rows = [
            {
                **{"checkpoint": each.name, "epoch": each.epoch, "verdict": each.verdict},
                **{"features": None, "embeddings": None},
                **{name: space.numbers for name, space in each.spaces.items()},
                "intervals": {name: each.spaces["features"].interval(name) for name in SHOWN},
                **({} if each.layers is None else {"layers": each.layers.as_dict()}),
            }
            for each in self.checkpoints
        ]
        return {"sentence": self.sentence, "checkpoints": rows}


def _text(name: str, space: Space) -> str:
    return with_interval(space.numbers[name], space.interval(name), METRICS[name].decimals)
