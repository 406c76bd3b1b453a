"""Build the numbers that claims say are above 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

from scipy import stats

from solo_dimreg.studies.claims.claim import Number, Results
from solo_dimreg.studies.suites import Row

NAMES = {
    "linear_acc1": "linear accuracy",
    "effective_rank": "effective rank",
    "lid": "LID",
    "z_correlation": "correlation of the embeddings",
    "transfer_acc1": "linear accuracy on the other data",
    "mutual_information": "I(R;Z)",
    "adadim_alpha": "alpha",
}


def exceeds(metric: str, larger: Row, smaller: Row) -> Number:
    """Return the number that one row's metric exceeds another row's."""
    says = f"{NAMES[metric]} of {larger.name} minus that of {smaller.name}"
    return _difference(says, partial(_result, larger, metric), partial(_result, smaller, metric))


def ladder(metric: str, rows: Sequence[Row]) -> tuple[Number, ...]:
    """Return the numbers that a metric grows from each row to the next."""
    return tuple(exceeds(metric, larger, smaller) for smaller, larger in pairwise(rows))


def equal(metric: str, one: Row, other: Row, margin: float) -> tuple[Number, ...]:
    """Return the numbers that two rows differ by less than a margin.

    They are two one-sided tests (Schuirmann 1987).
    """
    parts = partial(_result, one, metric), partial(_result, other, metric)

    def distance_to_margin(verb: str, sign: int) -> Number:
        says = f"{margin:g} {verb} the difference between the {NAMES[metric]} of {one.name} and {other.name}"
        return Number(says, lambda results: margin + sign * (parts[0](results) - parts[1](results)), parts)

    return distance_to_margin("plus", 1), distance_to_margin("minus", -1)


def above(metric: str, row: Row, threshold: float) -> Number:
    """Return the number that a row's metric exceeds a threshold, which is fixed beforehand."""
    says = f"{NAMES[metric]} of {row.name} minus {threshold:g}"
    return _difference(says, partial(_result, row, metric), lambda _: threshold)


def exceeds_at_the_end(metric: str, larger: Row, smaller: Row) -> Number:
    """Return the number that one row's monitored metric exceeds another's after the last epoch."""
    says = f"{NAMES[metric]} of {larger.name} minus that of {smaller.name}, at the end"
    return _difference(says, partial(_at, larger, metric, 1), partial(_at, smaller, metric, 1))


def rise(row: Row, metric: str, first: float, last: float) -> Number:
    """Return the number that a monitored metric grows between two parts of the training.

    The first epoch is 0 and the last one is 1.
    """
    says = f"{NAMES[metric]} of {row.name} {_when(last)} minus {_when(first)}"
    return _difference(says, partial(_at, row, metric, last), partial(_at, row, metric, first))


def slower(row: Row, metric: str, turn: float) -> Number:
    """Return the number that a metric grows less per epoch after a part of the training than before it."""

    def difference(results: Results) -> float:
        start, middle, end = (_at(row, metric, part, results) for part in (0, turn, 1))
        epochs = len(curve_of(row, metric, results)) - 1
        before = round(turn * epochs)
        if not 0 < before < epochs:
            return math.nan
        return (middle - start) / before - (end - middle) / (epochs - before)

    says = f"rise of {NAMES[metric]} of {row.name} per epoch before {turn:.0%} minus after"
    return Number(says, difference)


def _difference(says: str, larger: Callable[[Results], float], smaller: Callable[[Results], float]) -> Number:
    return Number(says, lambda results: larger(results) - smaller(results), (larger, smaller))


def _result(row: Row, metric: str, results: Results) -> float:
    return float(results[row.name][metric])


def _when(part: float) -> str:
    return "after the first epoch" if part == 0 else "at the end" if part == 1 else f"after {part:.0%}"


def curve_of(row: Row, metric: str, results: Results) -> list[float]:
    """Return a row's monitored metric over the epochs."""
    curve = results[row.name]["curves"].get(metric, {})
    return [float(curve[epoch]) for epoch in sorted(curve)]


def _at(row: Row, metric: str, part: float, results: Results) -> float:
    curve = curve_of(row, metric, results)
    return curve[round(part * (len(curve) - 1))] if curve else math.nan


def tau(results: Results, metric: str, rows: Sequence[Row], best: float | None = None) -> float:
    """Return Kendall's tau between a metric that needs no labels and the linear accuracy, over rows.

    Args:
        results: The results of one seed.
        metric: The key of the metric. A row without the metric, whose features all lie on a line, comes last.
        rows: The rows to order.
        best: The best value, nearest to which is better; by default more is better.
    """

    def score(value: float | None) -> float:
        if value is None or not math.isfinite(value):
            return -math.inf
        return value if best is None else -abs(value - best)

    scores = [score(results[row.name][metric]) for row in rows]
    accuracies = [results[row.name]["linear_acc1"] for row in rows]
    return float(stats.kendalltau(scores, accuracies).statistic)
