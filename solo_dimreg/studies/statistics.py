"""Decide from several seeds: paired tests, intervals, and corrections for many claims."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

CONFIDENCE = 0.95
LEVEL = (1 - CONFIDENCE) / 2  # one-sided
SPENT = 2 / 3  # of the level that is left, at each look
# Numbers of the seeds that differ by less than EQUAL times the largest count as equal, and numbers below ZERO
# as 0: sums of percentages and ranks are rounded at 1e-13. Both are ROUNDED times the results that were
# subtracted, if that is more: an accuracy is a float32, and a mean of batches.
EQUAL = 1e-9
ZERO = 1e-12
ROUNDED = 1e-6


@dataclass(frozen=True)
class Estimate:
    """The mean over the seeds of a number, such as one that a claim says is above 0.

    Attributes:
        mean: The mean.
        low, high: Its interval, Student's t.
        error: Its standard error.
        p_above: One-sided p-value of "it is not above 0".
        p_below: One-sided p-value of "it is not below 0".
    """

    mean: float
    low: float
    high: float
    error: float
    p_above: float
    p_below: float


UNKNOWN = Estimate(*4 * (math.nan,), 1.0, 1.0)


def estimate(values: Sequence[float], size: float = 0.0, confidence: float = CONFIDENCE) -> Estimate:
    """Return the estimate of Student's t from one number per seed.

    For two methods, the number is the difference of their runs with that seed.

    Args:
        values: At least two numbers. If all are equal up to rounding, Student's t would be certain; the
            p-value is then that of a sign test, and zeros show nothing. If one is not finite, nothing is
            known.
        size: If the numbers are differences: the largest result that was subtracted or subtracted from.

    Raises:
        ValueError: There are fewer than two numbers.
    """
    if len(values) < 2:
        raise ValueError(f"an interval needs at least two numbers, got {list(values)}.")
    if not all(map(math.isfinite, values)):
        return UNKNOWN
    rounding = ROUNDED * size
    values = [0.0 if abs(value) <= max(ZERO, rounding) else value for value in values]
    mean = math.fsum(values) / len(values)
    if max(values) - min(values) <= max(EQUAL * max(map(abs, values)), rounding):
        chance = 0.5 ** len(values)
        above, below = (chance if mean > 0 else 1.0), (chance if mean < 0 else 1.0)
        return Estimate(mean, mean, mean, 0.0, above, below)
    found = stats.ttest_1samp(values, 0.0, alternative="greater")
    interval = stats.ttest_1samp(values, 0.0).confidence_interval(confidence)
    p = float(found.pvalue)
    error = float(stats.sem(values))
    return Estimate(mean, float(interval.low), float(interval.high), error, p, 1 - p)


def holm(p_values: Sequence[float], count: int | None = None) -> list[float]:
    """Return p-values with Holm's step-down adjustment.

    The chance of any false positive then stays below the level.

    Args:
        p_values: The known p-values.
        count: The number of tests, by default that of the known p-values; unknown ones count as 1.

    References:
        Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics
        1979.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    count = len(p_values) if count is None else count
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (count - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def all_above(estimates: Sequence[Estimate]) -> float:
    """Return the p-value of "not all of them are above 0": an intersection-union test takes the largest."""
    return max(each.p_above for each in estimates)


def any_below(estimates: Sequence[Estimate]) -> float:
    """Return the p-value of "none of them is below 0", corrected for their number."""
    return min(1.0, len(estimates) * min(each.p_below for each in estimates))


def level_of_look(look: int) -> float:
    """Return the two-sided level of a look at the results, the first of which is 1.

    A look spends SPENT of what the earlier ones left of 1 - CONFIDENCE. All looks together, however many,
    spend no more than that, so the chance of a false positive at any of them stays below it (Bonferroni).
    """
    return (1 - CONFIDENCE) * SPENT * (1 - SPENT) ** (look - 1)
