"""What a claim is, and what becomes of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from solo_dimreg.studies.claims.statistics import LEVEL, Estimate, all_above, any_below, estimate, holm
from solo_dimreg.studies.suites import Row

# The results of one seed, by the name of the row or of the experiment.
Results = Mapping[str, Mapping[str, Any]]

RULE = (
    "Each number of a claim is taken of every seed; runs of one seed share the order of the data and, where "
    "the networks are the same, the initial weights. The claim holds if all of its numbers are above 0: the "
    "largest of their one-sided p-values (Student's t over the seeds), after Holm's correction over the "
    f"claims of the same paper, tried or not, is below {LEVEL:g}. It is contradicted if one of them is below "
    "0 by the same test, corrected for their number too. Otherwise it is not shown."
)


@dataclass(frozen=True)
class Number:
    """A number that the claim says is above 0, of the results of one seed; NaN where it cannot be taken."""

    says: str
    of: Callable[[Results], float]


@dataclass(frozen=True)
class Experiment:
    """A measurement besides trained rows.

    Attributes:
        name: That of its results.
        measure: A function of a module, from the seed to its figures.
        version: Raised when these figures change, so that older results are measured again.
    """

    name: str
    measure: Callable[[int], dict[str, Any]]
    version: int = 1


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper, and how it is decided.

    Attributes:
        name: For the command line.
        paper, place: Where it stands.
        sentence: What it says, in our words.
        published: The paper's figures.
        rows: What is trained for it.
        numbers: What must be above 0; the first is the effect that is shown.
        unit: Of the effect.
        experiments: What is measured for it besides.
        measures: Names in ``solo_dimreg.studies.claims.measures.MEASURES``, taken of its rows.
        note: How the setting was chosen, where that is not the paper's.
    """

    name: str
    paper: str
    place: str
    sentence: str
    published: str
    rows: tuple[Row, ...]
    numbers: tuple[Number, ...]
    unit: str = ""
    experiments: tuple[Experiment, ...] = ()
    measures: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Outcome:
    """What the seeds say of a claim.

    Attributes:
        verdict: ``holds``, ``not shown`` or ``contradicted``.
        p: The p-value for the claim after Holm's correction.
        estimates: Of each of its numbers.
        values: Of each of its numbers, seed by seed; where one is not finite, nothing is shown.
    """

    claim: Claim
    verdict: str
    p: float
    estimates: tuple[Estimate, ...]
    values: tuple[tuple[float, ...], ...]

    @property
    def weakest(self) -> int:
        """The index of the number on which the claim stands or falls."""
        return max(range(len(self.estimates)), key=lambda i: self.estimates[i].p_above)


def decide(claims: Sequence[Claim], results: Sequence[Results], known: Sequence[Claim] = ()) -> list[Outcome]:
    """The outcome of every claim.

    Args:
        claims: Those that were tried.
        results: Of each seed.
        known: All that there are, by default those that were tried. Holm's correction is over all of the
            same paper, so that a verdict does not depend on which were chosen.
    """
    values = [[tuple(number.of(seed) for seed in results) for number in claim.numbers] for claim in claims]
    estimates = [[estimate(each) for each in numbers] for numbers in values]
    outcomes: dict[int, Outcome] = {}
    for paper in dict.fromkeys(claim.paper for claim in claims):
        own = [i for i, claim in enumerate(claims) if claim.paper == paper]
        count = sum(claim.paper == paper for claim in known or claims)
        above = holm([all_above(estimates[i]) for i in own], count)
        below = holm([any_below(estimates[i]) for i in own], count)
        for i, p, q in zip(own, above, below, strict=True):
            finite = all(math.isfinite(value) for number in values[i] for value in number)
            verdict = "holds" if p < LEVEL else "contradicted" if q < LEVEL and finite else "not shown"
            outcomes[i] = Outcome(claims[i], verdict, p, tuple(estimates[i]), tuple(values[i]))
    return [outcomes[i] for i in range(len(claims))]
