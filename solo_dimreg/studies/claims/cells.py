"""Say in words what an outcome is, as in ``claims.json``: for tables, pages and terminals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from solo_dimreg.studies.claims.claim import CONTRADICTED, HOLDS, NOT_SHOWN, OPPOSITE, UNFINISHED

# The singular and the plural of a count.
COUNTED = {
    HOLDS: ("holds here", "hold here"),
    NOT_SHOWN: ("is not shown here", "are not shown here"),
    OPPOSITE: ("is opposite here", "are opposite here"),
    CONTRADICTED: ("is contradicted", "are contradicted"),
    UNFINISHED: ("is unfinished", "are unfinished"),
}
UNKNOWN = "not known"
SHOWN = 3  # numbers of a claim that are shown

# An outcome as in ``claims.json``.
Told = Mapping[str, Any]


def word(outcome: Told) -> str:
    """Return the verdict of an outcome without the number of seeds that are done."""
    return str(outcome["verdict"]).partition(",")[0]


def says(outcome: Told) -> str:
    """Return the verdict of an outcome; if it is decided, with its numbers and their intervals."""
    if word(outcome) == UNFINISHED:
        return str(outcome["verdict"])
    return f"{outcome['verdict']}: {'; '.join(effects(outcome))}"


def effects(outcome: Told) -> list[str]:
    """Return the first means of an outcome with their intervals, as texts."""
    units = outcome.get("units") or [outcome["unit"]] * len(outcome["numbers"])
    shown = [_effect(*each) for each in zip(outcome["estimates"][:SHOWN], units, strict=False)]
    if set(shown) == {UNKNOWN}:
        return [UNKNOWN]
    more = len(outcome["numbers"]) - SHOWN
    return [*shown, f"and {more} more"] if more > 0 else shown


def _effect(estimate: Mapping[str, Any], unit: str) -> str:
    """Return a mean to two digits, with its unit and the 95 % interval in parentheses."""
    if estimate["mean"] is None or not math.isfinite(estimate["mean"]):  # null is NaN in JSON
        return UNKNOWN
    size = abs(estimate["mean"])
    places = max(0, 1 - math.floor(math.log10(size))) if size else 2
    mean, low, high = (f"{estimate[key]:.{places}f}".replace("-", "−") for key in ("mean", "low", "high"))
    sign = "" if mean.startswith("−") else "+"
    return f"{sign}{mean}{unit and f' {unit}'} ({low} to {high})"


def counted(outcomes: Sequence[Told]) -> str:
    """Return the number of claims, and how many have each verdict."""
    words = Counter(map(word, outcomes))
    counts = [f"{n} {COUNTED[each][n > 1]}" for each in COUNTED if (n := words[each])]
    return f"{len(outcomes)} {'claim' if len(outcomes) == 1 else 'claims'}: {', '.join(counts)}"


def regime(outcomes: Sequence[Told]) -> str:
    """Return the setting of our trainings in brackets, for the head of a table."""
    regimes = dict.fromkeys(each["regime"] for each in outcomes if each["regime"])
    return f" ({'; '.join(regimes)})" if regimes else ""


def published(outcome: Told) -> str:
    """Return what a paper says, where, and how its setting differs."""
    differs = f". The paper's setting: {outcome['differs']}" if outcome["differs"] else ""
    return f"{outcome['published']} ({outcome['place']}){differs}"
