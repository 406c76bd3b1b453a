"""The table of all metrics of one or several diagnoses, as text."""

from __future__ import annotations

from collections.abc import Sequence

from solo_dimreg.diagnosis.diagnose import Diagnosis
from solo_dimreg.diagnosis.verdict import judge
from solo_dimreg.metrics.numbers import OF_ONE_SET
from solo_dimreg.metrics.registry import METRICS, MetricRecord

# What the verdict and the cautions say.
ELSEWHERE = ("duplicates", "spread")


def summary_table(diagnoses: Sequence[Diagnosis]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the metrics as text, with a column for the features of each input."""
    columns = [(each, name, space) for each in diagnoses for name, space in each.spaces.items()]
    several = len(diagnoses) > 1
    header = ["", *(f"{each.source.name}, {name}" if several else name for each, name, _ in columns)]
    verdicts = ["verdict", *(judge(space).kind for _, _, space in columns)]
    lines = [
        _line(record, [space.numbers[name] for _, _, space in columns])
        for name, record in OF_ONE_SET.items()
        if name not in ELSEWHERE
    ]
    information = [each.information.get("mutual_information") for each, _, _ in columns]
    lines.append(_line(METRICS["mutual_information"], information))
    return header, [verdicts, *(line for line in lines if line)]


def _line(record: MetricRecord, values: Sequence[float | None]) -> list[str]:
    """Return the row of a metric, or nothing if no input has it."""
    if all(value is None for value in values):
        return []
    label = f"{record.label}, {record.unit}" if record.unit else record.label
    return [label, *("–" if value is None else f"{value:.{record.decimals}f}" for value in values)]
