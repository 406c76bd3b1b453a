"""The table of all metrics of one or several diagnoses, as text."""

from __future__ import annotations

from collections.abc import Sequence

from solo_dimreg.diagnosis.diagnose import Diagnosis
from solo_dimreg.diagnosis.differences import Comparison
from solo_dimreg.metrics.intervals import Interval, with_interval
from solo_dimreg.metrics.numbers import OF_ONE_SET
from solo_dimreg.metrics.registry import METRICS, MetricRecord

# The verdict and the cautions say the others.
SHOWN = {name: record for name, record in OF_ONE_SET.items() if name not in ("duplicates", "spread")}


def summary_table(diagnoses: Sequence[Diagnosis]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the metrics as text, with a column for the features of each input."""
    columns = [(each, name, space) for each in diagnoses for name, space in each.spaces.items()]
    several = len(diagnoses) > 1
    header = ["", *(f"{each.source.name}, {name}" if several else name for each, name, _ in columns)]
    verdicts = ["verdict", *(each.verdict_on(space).title for each, _, space in columns)]
    lines = [
        _line(record, [(space.numbers[name], space.interval(name)) for _, _, space in columns])
        for name, record in SHOWN.items()
    ]
    name = "mutual_information"
    information = [(each.information.get(name), each.information_intervals.get(name)) for each, *_ in columns]
    lines.append(_line(METRICS[name], information))
    return header, [verdicts, *(line for line in lines if line)]


def differences_table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of all differences of one input from another, with their intervals."""
    lines = []
    for name, record in SHOWN.items():
        found = [space.get(name) for space in comparison.spaces.values()]
        lines.append(_line(record, [(each.value, each.interval) if each else (None, None) for each in found]))
    return ["", *comparison.spaces], [line for line in lines if line]


def _line(record: MetricRecord, values: Sequence[tuple[float | None, Interval | None]]) -> list[str]:
    """Return the row of a metric, or nothing if no input has it."""
    if all(value is None for value, _ in values):
        return []
    label = f"{record.label}, {record.unit}" if record.unit else record.label
    return [label, *(with_interval(*each, record.decimals) for each in values)]
