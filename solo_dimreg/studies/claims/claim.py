"""A claim, the rule that decides it, and its outcome."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from solo_dimreg.studies.claims.experiments import EXPERIMENTS
from solo_dimreg.studies.claims.measures import MEASURES
from solo_dimreg.studies.claims.numbers import Number, Results
from solo_dimreg.studies.statistics import LEVEL, UNKNOWN, Estimate, all_above, any_below, holm

RULE = (
    "Each number of a claim is computed for every seed. Runs of one seed share the order of the data and, if "
    "the networks are the same, the initial weights. The claim holds if all of its numbers are above 0, or "
    "on the right side of their limit: the largest of their one-sided p-values (Student's t over the seeds; "
    "for Kendall's tau within one method, over the jackknife's pseudo-values of its settings), after Holm's "
    f"correction over all claims of the same paper, tested or not, is below {LEVEL:g}. The opposite holds "
    "if one of its numbers is on the other side by the same test, which is also corrected for their number. "
    "For Kendall's tau the other side is below 0: a small one above 0 orders in the claimed way, though "
    "weakly. A claim that trains no network, such as a formula, is then "
    "contradicted. Otherwise it is not shown. A claim is decided when all of its seeds are done."
)
HOLDS, NOT_SHOWN, OPPOSITE, CONTRADICTED = "holds here", "not shown here", "opposite here", "contradicted"
UNFINISHED, CHOSEN = "unfinished", "chosen on these seeds"


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper, and the numbers that decide it.

    Attributes:
        name: The name on the command line.
        paper, place: The source of the sentence.
        sentence: The sentence in our words.
        published: The paper's numbers.
        numbers: The numbers that must be above 0, or on the right side of their limit.
        unit: The unit of the effect.
        note: How the setting was chosen, if it is not the paper's.
        differs: The paper's setting, where it differs from ours: data, network, epochs, batch.
        regime: Our setting in a few words.
        seeds: The number of seeds that decide it; by default all.
        beside: The rows that its picture shows first, such as a healthy one; the claim's follow.
        chosen_on: The first and the last of the seeds on which its setting was chosen. On these it has no
            verdict.
    """

    name: str
    paper: str
    place: str
    sentence: str
    published: str
    numbers: tuple[Number, ...]
    unit: str = ""
    note: str = ""
    differs: str = ""
    regime: str = ""
    seeds: int | None = None
    beside: tuple[str, ...] = ()
    chosen_on: tuple[int, ...] = ()

    @property
    def rows(self) -> list[str]:
        """Return the rows that are trained for the claim."""
        return [name for name in self.needed if name not in EXPERIMENTS]

    @property
    def experiments(self) -> list[str]:
        """Return the experiments that are measured for the claim."""
        return [name for name in self.needed if name in EXPERIMENTS]

    @property
    def needed(self) -> dict[str, None]:
        """Return the rows and the experiments in their order."""
        return dict.fromkeys(name for number in self.numbers for name in number.rows)

    @property
    def measures(self) -> list[str]:
        """Return what is measured for the rows beside accuracies and dimensionality."""
        wanted = dict.fromkeys(name for number in self.numbers for name in number.metrics)
        return [name for name in wanted if name in MEASURES]

    def was_chosen_on(self, seeds: Sequence[int]) -> bool:
        """Return whether its setting was chosen on one of some seeds."""
        chosen = range(self.chosen_on[0], self.chosen_on[-1] + 1) if self.chosen_on else ()
        return any(seed in chosen for seed in seeds)

    def as_dict(self) -> dict[str, Any]:
        """Return the claim with what is measured for it in words, for JSON."""
        texts = ("name", "paper", "place", "sentence", "published", "unit", "note")
        return {
            **{key: getattr(self, key) for key in texts},
            "regime": self.regime if self.rows else "",
            "differs": self.differs if self.rows else "",
            "rows": self.rows,
            "experiments": self.experiments,
            "numbers": [{"says": number.says, "to_be": number.to_be} for number in self.numbers],
        }


@dataclass(frozen=True)
class Outcome:
    """The verdict of the seeds on a claim.

    Attributes:
        verdict: ``holds here``, ``not shown here``, ``opposite here``, ``contradicted``, ``unfinished`` with
            the number of seeds that are done, or ``chosen on these seeds``.
        p: The p-value of the claim after Holm's correction.
        estimates: The estimate of each of its numbers.
        values: The values of each of its numbers, seed by seed; if one is not finite, nothing is shown.
        again: The verdicts of replications, each with what was other.
    """

    claim: Claim
    verdict: str
    p: float
    estimates: tuple[Estimate, ...]
    values: tuple[tuple[float, ...], ...]
    again: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the outcome with its claim and what was measured, for JSON."""
        told = self.claim.as_dict()
        for place, number in enumerate(self.claim.numbers):
            each = self.estimates[place]
            low, high = sorted((number.measured(each.low), number.measured(each.high)))
            told["numbers"][place] |= {
                "mean": number.measured(each.mean),
                "low": low,
                "high": high,
                "p": each.p_above,
                "p_opposite": each.p_below,
                "values": [number.measured(value) for value in self.values[place]],
            }
        return {**told, "verdict": self.verdict, "p": self.p, "again": self.again}


def decide(claims: Sequence[Claim], results: Sequence[Results], known: Sequence[Claim] = ()) -> list[Outcome]:
    """Return the outcome of every claim.

    Args:
        results: The results of each seed; what is not done is missing there.
        known: All known claims; by default the tested ones. Holm's correction is over all claims of the same
            paper, so that a verdict does not depend on the choice of claims.
    """
    outcomes: dict[int, Outcome] = {}
    seeds = [  # None for one that is not done
        [seed if seed.keys() >= claim.needed.keys() else None for seed in results[: claim.seeds]]
        for claim in claims
    ]
    found = [[seed for seed in own if seed is not None] for own in seeds]
    estimates = [
        tuple(number.estimate(found[i]) if len(found[i]) > 1 else UNKNOWN for number in claim.numbers)
        for i, claim in enumerate(claims)
    ]
    for paper in dict.fromkeys(claim.paper for claim in claims):
        own = [i for i, claim in enumerate(claims) if claim.paper == paper]
        count = sum(claim.paper == paper for claim in known or claims)
        above = holm([all_above(estimates[i]) for i in own], count)
        below = holm([any_below(estimates[i]) for i in own], count)
        for i, p, q in zip(own, above, below, strict=True):
            values = tuple(
                tuple(math.nan if seed is None else number.of(seed) for seed in seeds[i])
                for number in claims[i].numbers
            )
            if len(found[i]) < len(seeds[i]):
                verdict = f"{UNFINISHED}, {len(found[i])} of {len(seeds[i])} seeds"
            elif p < LEVEL:
                verdict = HOLDS
            elif q < LEVEL and all(math.isfinite(value) for number in values for value in number):
                verdict = OPPOSITE if claims[i].rows else CONTRADICTED
            else:
                verdict = NOT_SHOWN
            outcomes[i] = Outcome(claims[i], verdict, p, estimates[i], values)
    return [outcomes[i] for i in range(len(claims))]
