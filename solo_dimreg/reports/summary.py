"""Summarize the metrics of runs by means and standard deviations over their seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from solo_dimreg.reports.run_files import ABSENT
from solo_dimreg.reports.runs import METRICS


def mean_and_deviation(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return mean and sample standard deviation; each is None if there are too few values."""
    mean = statistics.fmean(values) if values else None
    return mean, statistics.stdev(values) if len(values) > 1 else None


def mean_as_text(mean: float | None, deviation: float | None, divisor: float = 1, unit: str = "") -> str:
    """Return a mean with its standard deviation, both in another unit, as text for a table."""
    if mean is None:
        return ABSENT
    spread = "" if deviation is None else f" ± {deviation / divisor:.2f}"
    return f"{mean / divisor:.2f}{spread}{unit}"


def summarize(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return mean and standard deviation (None for one seed) of each metric of ``result.json`` by method."""
    summary = []
    for method in dict.fromkeys(result["method"] for result in results):
        runs = [result for result in results if result["method"] == method]
        line: dict[str, Any] = {"method": method, "seeds": len(runs)}
        for name in METRICS:
            values = [run[name] for run in runs if run.get(name) is not None]
            line[name], line[f"{name}_std"] = mean_and_deviation(values)
        summary.append(line)
    return summary


def results_table(summary: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of the comparison, as text; metrics that no method has are left out."""
    shown = [name for name in METRICS if any(line[name] is not None for line in summary)]
    times = [line["pretrain_seconds"] for line in summary if line["pretrain_seconds"] is not None]
    scales = {"pretrain_seconds": duration_unit(min(times, default=0))}
    header = ["method", "seeds", *(METRICS[name] for name in shown)]
    return header, [
        [
            line["method"],
            str(line["seeds"]),
            *(mean_as_text(line[name], line[f"{name}_std"], *scales.get(name, ())) for name in shown),
        ]
        for line in summary
    ]


def duration_unit(seconds: float) -> tuple[int, str]:
    """Return the number of seconds in the fitting unit of time, and the unit's suffix."""
    if seconds < 120 or not math.isfinite(seconds):
        return 1, " s"
    return (60, " min") if seconds < 7200 else (3600, " h")
