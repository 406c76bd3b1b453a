"""Say which differences a comparison can show, before anything is trained."""

from __future__ import annotations

import math

import numpy as np
from scipy import optimize, stats

from solo_dimreg.studies.statistics import level_of_look

POWER = 0.8
# The standard deviation in points of paired differences without the chance of few images, and the part of the
# validation images on which just one of two paired runs is right. Together they give 2.85 points on 480
# images: the median of the 27 paired differences of linear accuracy in docs/data/claims.json.
TRAINING = 2.0
DISAGREE = 0.2


def smallest_difference(seeds: int, spread: float, level: float) -> float:
    """Return the difference that a two-sided paired t-test at a level shows with a probability of 80 %.

    ``spread`` is the standard deviation of the paired differences, one for each of at least 2 seeds.
    """
    bound = stats.t.isf(level / 2, seeds - 1)

    def lack(shift: float) -> float:
        return 1 - POWER - float(stats.nct.cdf(bound, seeds - 1, shift))

    with np.errstate(divide="ignore"):  # in the far tail of SciPy's noncentral t
        # The other tail is negligible there.
        shift = optimize.brentq(lack, 0.1, 1.5 * bound + 3)
    return float(shift) * spread / math.sqrt(seeds)


def assumed_spread(images: int) -> float:
    """Return the standard deviation in points that paired differences of accuracy are assumed to have.

    Args:
        images: The number of validation images; their binomial error is a part of it.
    """
    return math.sqrt(TRAINING**2 + 100**2 * DISAGREE / images)


def power_statement(images: int, seeds: int, rows: int = 1) -> str:
    """Return a sentence or two on the differences of accuracy that so many rows and seeds can show."""
    if seeds < 2:
        return "One seed gives no interval, so no difference can be shown; take at least 3 seeds."
    spread, share = assumed_spread(images), level_of_look(1)
    found = smallest_difference(seeds, spread, share / rows)
    if found >= 100:
        return f"{seeds} seeds can show no difference of accuracy; take at least 3."
    among = f" over {rows} rows" if rows > 1 else ""
    return (
        f"With {seeds} seeds only differences above about {found:.2g} points can be shown: paired t-test, "
        f"{100 * POWER:.0f} % power, two-sided {100 * share:.2g} %{among} (the first look's share of 5 %), "
        f"and differences that vary by {spread:.2g} points from seed to seed (assumed for {images} validation"
        " images)."
    )
