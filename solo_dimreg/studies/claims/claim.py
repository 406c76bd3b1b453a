"""A claim, the rule that decides it, and its outcome."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from solo_dimreg.studies.claims.experiments import EXPERIMENTS
from solo_dimreg.studies.claims.measures import MEASURES
from solo_dimreg.studies.claims.numbers import Number, Results
from solo_dimreg.studies.statistics import LEVEL, Estimate, all_above, any_below, holm

RULE = (
    "Each number of a claim is computed for every seed. Runs of one seed share the order of the data and, if "
    "the networks are the same, the initial weights. The claim holds if all of its numbers are above 0: the "
    "largest of their one-sided p-values (Student's t over the seeds), after Holm's correction over all "
    f"claims of the same paper, tested or not, is below {LEVEL:g}. It is contradicted if one of its numbers "
    "is below 0 by the same test, which is also corrected for their number. Otherwise it is not shown."
)


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper, and the numbers that decide it.

    Attributes:
        name: The name on the command line.
        paper, place: The source of the sentence.
        sentence: The sentence in our words.
        published: The paper's numbers.
        numbers: The numbers that must be above 0; the first is the effect that is shown.
        unit: The unit of the effect.
        note: How the setting was chosen, if it is not the paper's.
    """

    name: str
    paper: str
    place: str
    sentence: str
    published: str
    numbers: tuple[Number, ...]
    unit: str = ""
    note: str = ""

    @property
    def rows(self) -> list[str]:
        """Return the rows that are trained for the claim."""
        return [name for name in self._needed() if name not in EXPERIMENTS]

    @property
    def experiments(self) -> list[str]:
        """Return the experiments that are measured for the claim."""
        return [name for name in self._needed() if name in EXPERIMENTS]

    def _needed(self) -> dict[str, None]:
        return dict.fromkeys(name for number in self.numbers for name in number.rows)

    @property
    def measures(self) -> list[str]:
        """Return what is measured for the rows beside accuracies and dimensionality."""
        wanted = dict.fromkeys(name for number in self.numbers for name in number.metrics)
        return [name for name in wanted if name in MEASURES]

    def as_dict(self) -> dict[str, Any]:
        """Return the claim with the numbers of its rule in words, for JSON."""
        texts = ("name", "paper", "place", "sentence", "published", "unit", "note")
        return {
            **{key: getattr(self, key) for key in texts},
            "rows": self.rows,
            "experiments": self.experiments,
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
