"""A claim, the rule that decides it, and its outcome."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from solo_dimreg.studies.statistics import LEVEL, Estimate, all_above, any_below, estimate, holm
from solo_dimreg.studies.suites import Row

# The results of one seed, by the name of the row or of the experiment.
Results = Mapping[str, Mapping[str, Any]]

RULE = (
    "Each number of a claim is computed for every seed. Runs of one seed share the order of the data and, if "
    "the networks are the same, the initial weights. The claim holds if all of its numbers are above 0: the "
    "largest of their one-sided p-values (Student's t over the seeds), after Holm's correction over all "
    f"claims of the same paper, tested or not, is below {LEVEL:g}. It is contradicted if one of its numbers "
    "is below 0 by the same test, which is also corrected for their number. Otherwise it is not shown."
)


@dataclass(frozen=True)
class Number:
    """A number, from one seed's results, that a claim says is above 0; NaN if it cannot be computed.

    Attributes:
        says: The number in words.
        of: The function of the results that computes it.
        parts: The results that are subtracted in it. They say how much of the number is rounding.
    """

    says: str
    of: Callable[[Results], float]
    parts: tuple[Callable[[Results], float], ...] = ()

    def estimate(self, results: Sequence[Results]) -> Estimate:
        """Return the estimate of the number over the seeds."""
        size = max((abs(part(seed)) for part in self.parts for seed in results), default=0.0)
        return estimate([self.of(seed) for seed in results], size)


@dataclass(frozen=True)
class Experiment:
    """A measurement that needs no trained rows.

    Attributes:
        name: The name of its results.
        measure: A function of a module, from the seed to the measured values.
        version: A number to raise when the values change, so that older results are measured again.
    """

    name: str
    measure: Callable[[int], dict[str, Any]]
    version: int = 1


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper, and the numbers that decide it.

    Attributes:
        name: The name on the command line.
        paper, place: The source of the sentence.
        sentence: The sentence in our words.
        published: The paper's numbers.
        rows: The rows that are trained for it.
        numbers: The numbers that must be above 0; the first is the effect that is shown.
        unit: The unit of the effect.
        experiments: The experiments that are measured for it.
        measures: Names in ``solo_dimreg.studies.claims.measures.MEASURES``, measured for its rows.
        note: How the setting was chosen, if it is not the paper's.
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

    def as_dict(self) -> dict[str, Any]:
        """Return the claim with the numbers of its rule in words, for JSON."""
        texts = ("name", "paper", "place", "sentence", "published", "unit", "note")
        return {
            **{key: getattr(self, key) for key in texts},
            "rows": [row.name for row in self.rows],
            "experiments": [experiment.name for experiment in self.experiments],
            "numbers": [number.says for number in self.numbers],
        }


@dataclass(frozen=True)
class Outcome:
    """The verdict of the seeds on a claim.

    Attributes:
        verdict: ``holds``, ``not shown`` or ``contradicted``.
        p: The p-value of the claim after Holm's correction.
        estimates: The estimate of each of its numbers.
        values: The values of each of its numbers, seed by seed; if one is not finite, nothing is shown.
    """

    claim: Claim
    verdict: str
    p: float
    estimates: tuple[Estimate, ...]
    values: tuple[tuple[float, ...], ...]

    @property
    def weakest(self) -> int:
        """Return the index of the number that decides the claim."""
        return max(range(len(self.estimates)), key=lambda i: self.estimates[i].p_above)

    def as_dict(self) -> dict[str, Any]:
        """Return the outcome with its claim, for JSON."""
        return {
            **self.claim.as_dict(),
            "verdict": self.verdict,
            "p": self.p,
            "estimates": [asdict(each) for each in self.estimates],
            "values": self.values,
        }


def decide(claims: Sequence[Claim], results: Sequence[Results], known: Sequence[Claim] = ()) -> list[Outcome]:
    """Return the outcome of every claim.

    Args:
        claims: The claims that were tested.
        results: The results of each seed.
        known: All known claims; by default the tested ones. Holm's correction is over all claims of the same
            paper, so that a verdict does not depend on the choice of claims.
    """
    values = [[tuple(number.of(seed) for seed in results) for number in claim.numbers] for claim in claims]
    estimates = [[number.estimate(results) for number in claim.numbers] for claim in claims]
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
