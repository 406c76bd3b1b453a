"""The differences between the metrics of two inputs, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from solo_dimreg.diagnosis.diagnose import DECIDING, Diagnosis
from solo_dimreg.metrics.intervals import Interval, interval
from solo_dimreg.metrics.numbers import OF_ONE_SET, Space
from solo_dimreg.metrics.registry import METRICS


@dataclass(frozen=True)
class Difference:
    """Holds the difference of a metric from that of another input, with its 95 % interval over images."""

    metric: str
    value: float
    interval: Interval

    def __str__(self) -> str:
        """Return the difference as a clause, without the ends of an interval that has no width."""
        record, (low, high) = METRICS[self.metric], self.interval
        none = low <= 0 <= high
        shown = self.interval if none else sorted(map(abs, self.interval))
        size, *ends = (f"{end:.{record.decimals}f}" for end in (abs(self.value), *shown))
        around = "" if low == high else f" ({ends[0]} to {ends[1]})"
        if none:
            return f"{'no' if low == high else 'no clear'} change in {record.label}{around}"
        return f"{record.label} {'rose' if self.value > 0 else 'fell'} by {size}{around}"


@dataclass(frozen=True)
class Comparison:
    """All differences of an input from another one.

    Attributes:
        paired: Whether row i of both counts as the same image, as the inputs have as many rows. If the rows
            have nothing to do with each other, their covariance is 0, and the intervals are those of
            independent samples.
        spaces: The differences of the features and, if both have some, of the embeddings, by metric.
    """

    name: str
    other: str
    paired: bool
    spaces: dict[str, dict[str, Difference]]

    def __str__(self) -> str:
        how = "row by row" if self.paired else "as independent samples"
        found = self.spaces["features"]
        clauses = "; ".join(str(found[name]) for name in DECIDING if name in found)
        return f"{self.name} against {self.other}, {how}: {clauses}."

    def as_dict(self) -> dict[str, Any]:
        """Return the differences for JSON."""
        spaces = {
            space: {
                name: {"difference": each.value, "interval": each.interval} for name, each in found.items()
            }
            for space, found in self.spaces.items()
        }
        return {"input": self.name, "from": self.other, "paired": self.paired, **spaces}


def differences(diagnoses: Sequence[Diagnosis]) -> list[Comparison]:
    """Return how each further input differs from the first."""
    return [compare(each, diagnoses[0]) for each in diagnoses[1:]]


def compare(diagnosis: Diagnosis, other: Diagnosis) -> Comparison:
    """Return how the metrics of a diagnosis differ from those of another one."""
    paired = diagnosis.features.samples == other.features.samples
    pairs = {
        name: (space, other.spaces[name]) for name, space in diagnosis.spaces.items() if name in other.spaces
    }
    spaces = {name: _differences(*pair, paired) for name, pair in pairs.items()}
    return Comparison(diagnosis.source.name, other.source.name, paired, spaces)


def _differences(space: Space, other: Space, paired: bool) -> dict[str, Difference]:
    found = {}
    for name in OF_ONE_SET:
        value, before = space.numbers[name], other.numbers[name]
        if value is None or before is None or not {name} <= space.deviations.keys() & other.deviations.keys():
            continue
        own, others = space.deviations[name], other.deviations[name]
        if paired and len(own) == len(others):
            moved = own - others
        else:  # of the same spread as the difference of independent deviations
            moved = torch.stack([own.std(), others.std()]).norm() * torch.tensor([1, -1]) / math.sqrt(2)
        exploded = space.interval(name) is None or other.interval(name) is None
        if (around := interval(float(value - before), moved)) is not None and not exploded:
            if isinstance(value, int):
                around = math.floor(around[0]), math.ceil(around[1])
            found[name] = Difference(name, value - before, around)
    return found
