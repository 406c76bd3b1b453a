"""Name the classes whose neighbourhoods have collapsed while those of the others have not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from statistics import median
from typing import Any

# The LID of a class at most this part of the classes' median, measured at so many of its samples.
PART, SAMPLES = 0.5, 10
NAMED = 10  # the sentence names at most this many classes


def mark_collapsed(classes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of the classes with ``collapsed``: whether the LID is at most half of their median."""
    counts = [each["lid"] is not None and each["samples"] >= SAMPLES for each in classes]
    lids = [each["lid"] for each in compress(classes, counts)]
    limit = PART * median(lids) if len(lids) > 1 else 0.0
    return [
        {**each, "collapsed": counted and each["lid"] <= limit}
        for each, counted in zip(classes, counts, strict=True)
    ]


def collapsed_classes(classes: Sequence[dict[str, Any]]) -> str:
    """Return the names of the classes with collapsed neighbourhoods in a sentence; empty if there is none."""
    found = sorted((each for each in classes if each["collapsed"]), key=lambda each: each["lid"])
    if not found:
        return ""
    middle = median(each["lid"] for each in classes if each["lid"] is not None)
    named = ", ".join(f"{each['class']} ({each['lid']:.2f})" for each in found[:NAMED])
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return (
        f"The neighbourhoods of {len(found)} of {len(classes)} classes have collapsed: their LID is at most "
        f"half of the classes' median of {middle:.2f}: {named}{more}."
    )
