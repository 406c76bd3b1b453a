"""What a claim is, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from solo_dimreg.studies.claims.statistics import LEVEL, Estimate, all_above, any_below, estimate, holm
from solo_dimreg.studies.suites import Row

# The results of one seed, by the name of the row.
Results = Mapping[str, Mapping[str, Any]]

RULE = (
    "Each number of a claim is taken of every seed; runs of one seed share the order of the data and, where "
    "the networks are the same, the initial weights. The claim holds if all of its numbers are above 0: the "
    "largest of their one-sided p-values (Student's t over the seeds), after Holm's correction over the "
    f"claims of the same paper, is below {LEVEL:g}. It is contradicted if one of them is below 0 by the same "
    "test, corrected for their number too. Otherwise it is not shown."
)


@dataclass(frozen=True)
class Number:
    """A number that the claim says is above 0, of the results of one seed."""

    says: str
    of: Callable[[Results], float]


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
    """

    name: str
    paper: str
    place: str
    sentence: str
    published: str
    rows: tuple[Row, ...]
    numbers: tuple[Number, ...]
    unit: str = ""


@dataclass(frozen=True)
class Outcome:
    """What the seeds say of a claim.

    Attributes:
        verdict: ``holds``, ``not shown`` or ``contradicted``.
        p: The p-value for the claim after Holm's correction.
        estimates: Of each of its numbers.
        values: Of each of its numbers, seed by seed.
    """

    claim: Claim
    verdict: str
    p: float
    estimates: tuple[Estimate, ...]
    values: tuple[tuple[float, ...], ...]


def decide(claims: Sequence[Claim], results: Sequence[Results]) -> list[Outcome]:
    """The outcome of every claim.

    Args:
        claims: Those that are decided together: Holm's correction is over those of the same paper.
        results: Of each seed.
    """
    values = [[tuple(number.of(seed) for seed in results) for number in claim.numbers] for claim in claims]
    estimates = [[estimate(each) for each in numbers] for numbers in values]
    outcomes: dict[str, Outcome] = {}
    for paper in dict.fromkeys(claim.paper for claim in claims):
        own = [i for i, claim in enumerate(claims) if claim.paper == paper]
        above = holm([all_above(estimates[i]) for i in own])
        below = holm([any_below(estimates[i]) for i in own])
        for i, p, q in zip(own, above, below, strict=True):
            verdict = "holds" if p < LEVEL else "contradicted" if q < LEVEL else "not shown"
            outcomes[claims[i].name] = Outcome(claims[i], verdict, p, tuple(estimates[i]), tuple(values[i]))
    return [outcomes[claim.name] for claim in claims]
