"""Diagnose all checkpoints of a run, and say how the dimensions change over the training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor

from solo_dimreg.diagnosis.diagnose import Diagnosis
from solo_dimreg.diagnosis.layer_profile import COLLAPSE, LOSS, LayerProfile, percent_of
from solo_dimreg.errors import ConfigError
from solo_dimreg.files import checkpoint_epoch, find_checkpoint
from solo_dimreg.metrics.intervals import Interval, interval, with_interval
from solo_dimreg.metrics.registry import METRICS

# The metrics of the table and the figure.
SHOWN = ("effective_rank", "lid", "mean_share", "off_diagonal_correlation")


def checkpoints_of(given: str) -> list[Path]:
    """Return the checkpoints of a run by their epochs.

    Raises:
        ConfigError: it is no folder of one run, or there are fewer than two checkpoints.
    """
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
    """Holds the metrics of one checkpoint's diagnosis, without its spectra and correlations."""

    name: str
    epoch: int
    verdict: str
    features: dict[str, Any]
    attainable: int
    embeddings: dict[str, Any] | None
    layers: LayerProfile | None
    intervals: dict[str, Interval | None] = field(default_factory=dict)
    rank_deviations: Tensor | None = None
    embedded_intervals: dict[str, Interval | None] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path, diagnosis: Diagnosis) -> Checkpoint:
        """Return the record of a checkpoint's diagnosis, without spectra and correlations."""
        embeddings = None if diagnosis.embeddings is None else diagnosis.embeddings.numbers
        features = diagnosis.features
        kind, layers = diagnosis.verdict.kind, diagnosis.layers
        epoch = checkpoint_epoch(path)
        return cls(
            *(path.name, epoch, kind, features.numbers, features.attainable, embeddings, layers),
            {name: features.interval(name) for name in SHOWN},
            features.deviations.get("effective_rank"),
            {name: diagnosis.embeddings.interval(name) for name in SHOWN} if diagnosis.embeddings else {},
        )


@dataclass(frozen=True)
class Course:
    """The checkpoints of a run, in their order."""

    checkpoints: Sequence[Checkpoint]

    @property
    def sentence(self) -> str:
        """Return what becomes of the effective rank of the features after its peak."""
        ranks = [float(each.features["effective_rank"]) for each in self.checkpoints]
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
        one, two = self.checkpoints[place], self.checkpoints[other]
        if one.rank_deviations is None or two.rank_deviations is None:
            return False
        moved = interval(
            float(two.features["effective_rank"] - one.features["effective_rank"]),
            two.rank_deviations - one.rank_deviations,
        )
        return moved is not None and not moved[0] <= 0 <= moved[1]

    @property
    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return header and rows of the metrics as text, a row for each checkpoint."""
        header = ["epoch", "verdict", *(METRICS[name].label for name in SHOWN), "of attainable (%)"]
        projected = self.checkpoints[0].embeddings is not None
        rows = []
        for each in self.checkpoints:
            rank, ends = each.features["effective_rank"], each.intervals.get("effective_rank")
            line = [
                str(each.epoch),
                each.verdict,
                *(_text(name, each.features, each.intervals) for name in SHOWN),
            ]
            embedded = (
                [_text("effective_rank", each.embeddings, each.embedded_intervals)] if each.embeddings else []
            )
            rows.append([*line, percent_of(rank, ends, each.attainable), *embedded])
        return header + ["effective rank of embeddings"] * projected, rows

    @property
    def curves(self) -> dict[str, dict[str, list[dict[int, float]]]]:
        """Return the curves of the metrics over the epochs, by label and then by kind."""
        kinds: dict[str, Iterable[tuple[int, dict[str, Any] | None]]] = {
            "features": [(each.epoch, each.features) for each in self.checkpoints],
            "embeddings": [(each.epoch, each.embeddings) for each in self.checkpoints],
        }
        panels: dict[str, dict[str, list[dict[int, float]]]] = {}
        for name in SHOWN:
            for kind, points in kinds.items():
                curve = {epoch: numbers[name] for epoch, numbers in points if numbers}
                curve = {epoch: value for epoch, value in curve.items() if value is not None}
                if curve:
                    panels.setdefault(METRICS[name].label, {})[kind] = [curve]
        return panels

    def as_dict(self) -> dict[str, Any]:
        """Return the sentence and all metrics of each checkpoint for JSON."""
        rows = [
            {
                **{"checkpoint": each.name, "epoch": each.epoch, "verdict": each.verdict},
                **{"features": each.features, "embeddings": each.embeddings},
                "intervals": each.intervals,
                **({} if each.layers is None else {"layers": each.layers.as_dict()}),
            }
            for each in self.checkpoints
        ]
        return {"sentence": self.sentence, "checkpoints": rows}


def _text(name: str, numbers: dict[str, Any], intervals: dict[str, Interval | None]) -> str:
    return with_interval(numbers[name], intervals.get(name), METRICS[name].decimals)
