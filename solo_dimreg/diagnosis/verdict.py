"""The verdict on a collapse, from the metrics of the features."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from solo_dimreg.diagnosis.sources.opening import FEATURES, NETWORK, REFERENCE
from solo_dimreg.functional._rows import KEPT_ROWS, PAIRWISE_ROWS
from solo_dimreg.functional.signal import STEP, noise_threshold
from solo_dimreg.metrics.neighbourhoods import LID_NEIGHBOURS
from solo_dimreg.metrics.numbers import Space

HEALTHY, PARTLY, COLLAPSED = "healthy", "partly collapsed", "collapsed"
CANNOT_TELL, NO_VERDICT = "cannot tell", "no verdict"

# The metrics that decide.
DECIDING = (
    *("samples", "dimensions", "duplicates", "spread", "signal_rank", "noise_share", "group_share"),
    *("effective_rank", "variance_rank", "lid_in_groups"),
)
# Relative to the root mean square length. A network in float32 gives a constant up to this.
COMPLETE_DEVIATION = 2e-6
# Of the width.
FEW_DIRECTIONS, SOME_DIRECTIONS = 1 / 4, 1 / 2
LOW_RANK, LOWISH_RANK = 1 / 16, 1 / 8
MOST = 0.5  # of the variance
TIGHT = 0.9  # of the variance of the signal lies between the groups
LEAST_GROUPS = 10  # fewer are a collapse
HANDFUL, WIDE = 6, 64
LOCAL_LID = 2.5
LEAST_ROWS = 32
ROWS_TO_RANK = 4  # this many rows for each direction of a signal that is to be counted

# The covariance matrix of this many dimensions takes 2 GiB in float64, and its decomposition several times
# that.
MAX_DIMENSIONS = 16_384
# Wider features are held in memory themselves; their copy in float64 takes at most 2 GiB.
MAX_NUMBERS = 2**28

THRESHOLDS = {
    "collapsed completely": "the features are equal up to the rounding of a network in float32, which is "
    f"{COMPLETE_DEVIATION:g} of their length",
    "collapsed globally": f"at most {FEW_DIRECTIONS:.0%} of the directions, or {SOME_DIRECTIONS:.0%} with an "
    f"effective rank below {LOWISH_RANK:.1%} of the attainable one, hold more than {MOST:.0%} of the "
    f"variance and stand out of the noise by a step of {STEP:g}; or the effective rank is below "
    f"{LOW_RANK:.2%} of the attainable one; except for the differences of at least {LEAST_GROUPS} tight "
    "groups",
    "collapsed locally": f"the LID within groups is below {LOCAL_LID:g} and below half the dimension of the "
    "whole",
    PARTLY: f"as a global collapse, with at most {SOME_DIRECTIONS:.0%} of the directions, or where they hold "
    f"less than {MOST:.0%} of the variance; or the effective rank is below {LOWISH_RANK:.1%} of the width; "
    f"or the entropy rank of the variances is below {HANDFUL} of at least {WIDE}; with the same exception",
    CANNOT_TELL: f"the distinct rows are fewer than {LEAST_ROWS} or than the width, and show no "
    "collapse; or more than half of the rows repeat an earlier one; or a few rows of large norm hold more "
    f"than {MOST:.0%} of the variance; or the rows differ by no more than the rounding of half precision",
    HEALTHY: "none of these",
}


@dataclass(frozen=True)
class Verdict:
    """A verdict on a collapse.

    Attributes:
        kind: ``healthy``, ``partly collapsed``, ``collapsed`` or ``cannot tell``; ``no verdict`` for a
            reference such as pixels.
        reason: The numbers that decide, and what they mean.
        rule: The rule by which they decide, from ``THRESHOLDS``.
        ways: How the features have collapsed: ``completely``, ``globally``, ``locally``.
    """

    kind: str
    reason: str
    rule: str = ""
    ways: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Return the kind with the ways, such as ``collapsed globally and locally``."""
        return f"{self.kind} {' and '.join(self.ways)}".strip()

    def as_dict(self) -> dict[str, object]:
        """Return the verdict for JSON."""
        return {**asdict(self), "ways": list(self.ways)}

    def __str__(self) -> str:
        return f"{self.title}: {self.reason}"


def judge(space: Space, of: str = FEATURES) -> Verdict:
    """Return the verdict by ``THRESHOLDS``.

    Scale, rotation and a shift of the features do not change it. The only exception is a shift so large that
    the precision of the numbers no longer resolves the features.

    Args:
        space: The metrics of the features.
        of: ``FEATURES``, ``NETWORK`` or ``REFERENCE``. Rows that are all equal are a complete collapse of a
            network that has seen different inputs, and tell nothing in a file.
    """
    if of == REFERENCE:
        return Verdict(NO_VERDICT, f"a reference to compare with: {_numbers(space)}.")
    distinct = space.samples - space.duplicates
    if distinct > 1 and space.resolution > COMPLETE_DEVIATION and _is_constant(space):
        return _unknown(
            f"the {space.samples} features differ by no more than the rounding of their numbers, which is "
            f"{space.resolution:.1e} of their length; save them in float32, or subtract their mean before."
        )
    if (distinct == 1 and of == NETWORK) or (distinct > 1 and _is_constant(space)):
        return _collapsed(
            ["completely"],
            f"the {space.samples} features are equal, up to {space.spread**0.5:.1e} of their length.",
        )
    if distinct == 1:
        return _unknown(
            f"all {space.samples} rows are equal. This is a complete collapse if their inputs differ; equal "
            "inputs give the same."
        )
    if space.duplicates > space.samples / 2:
        return _unknown(
            f"{space.duplicates} of {space.samples} rows repeat an earlier one; give rows of different "
            "inputs. If the inputs differ already, the features have collapsed to few points."
        )
    if _is_outlying(space) and space.noise_share <= 1 - MOST:
        return _unknown(
            "a few rows of large norm hold most of the variance, and hide how the others spread; find out "
            f"why they are so large, and leave them out. With them, {_numbers(space)}."
        )
    found, grouped = _global(space, distinct), space.group_share is not None and space.group_share > TIGHT
    local = _is_local(space, distinct, found)
    if found == COLLAPSED or local:
        ways = [*(["globally"] if found == COLLAPSED else []), *(["locally"] if local else [])]
        reason = f"{_numbers(space)}."
        if grouped:
            number = "" if _is_grouped(space) else "fewer than ten "
            reason += f" The directions that stand out are the differences of {number}tight groups."
        if local:
            reason += " Images with few dimensions of their own cause a low LID without a collapse."
        return _collapsed(ways, reason)
    if found == CANNOT_TELL:
        return _unknown(
            f"{distinct} distinct rows are too few for {space.dimensions} dimensions; give {_advice(space)}. "
            f"With these, {_numbers(space)}."
        )
    groups = " The directions that stand out are the differences of tight groups." if grouped else ""
    more = " A higher rank would not be better by itself." if found == HEALTHY else ""
    return Verdict(found, f"{_numbers(space)}.{groups}{more}", THRESHOLDS[found])


def _collapsed(ways: list[str], reason: str) -> Verdict:
    rule = "; ".join(THRESHOLDS[f"collapsed {way}"] for way in ways)
    return Verdict(COLLAPSED, reason, rule, tuple(ways))


def _unknown(reason: str) -> Verdict:
    return Verdict(CANNOT_TELL, reason, THRESHOLDS[CANNOT_TELL])


def _is_constant(space: Space) -> bool:
    return space.spread < max(COMPLETE_DEVIATION, 2 * space.resolution) ** 2


def _rows_needed(space: Space) -> int:
    return max(LEAST_ROWS, space.dimensions)


def _advice(space: Space) -> str:
    """Return how many rows or dimensions would do; so many rows must be read."""
    needed, most = _rows_needed(space), most_rows(space.dimensions)
    if needed > most:
        return f"fewer dimensions than rows, as a diagnosis reads at most {most} rows of this width"
    return f"at least {needed}, better {4 * needed}, if there are as many, or fewer dimensions"


def most_rows(width: int) -> float:
    """Return the number of rows of a width that a diagnosis reads at most."""
    return min(KEPT_ROWS, MAX_NUMBERS // width) if width > MAX_DIMENSIONS else math.inf


def _is_grouped(space: Space) -> bool:
    """Return whether the directions that stand out are the differences of at least ten tight groups.

    C groups have C - 1 directions. Those of loose groups are above noise, and not all by a step; a few groups
    in a cloud with a steep spectrum have many directions above noise, and few by a step.
    """
    if space.group_share is None or space.group_share <= TIGHT:
        return False
    steps = int((space.spectrum > STEP * noise_threshold(space.spectrum, space.samples)).sum())
    return min(space.signal_rank, 2 * steps) + 1 >= LEAST_GROUPS


def _is_outlying(space: Space) -> bool:
    """Return whether a few rows are most of what stands out, see ``functional.group_share``.

    They may be missing among the rows in which groups are sought. These show nothing then.
    """
    if space.group_share is None:
        looked_at = min(space.samples - space.duplicates, PAIRWISE_ROWS)
        return 0 < ROWS_TO_RANK * 2 * space.signal_rank < looked_at and signal_step(space) > STEP
    return space.group_share < 1e-6


def signal_step(space: Space) -> float:
    """Return the median variance of the directions above noise over the threshold; infinite without noise."""
    threshold = noise_threshold(space.spectrum, space.samples)
    signal = space.spectrum[space.spectrum > threshold]
    return float(signal.median() / threshold) if len(signal) else 0.0


def _global(space: Space, distinct: int) -> str:
    rank, width = space.signal_rank, space.dimensions
    enough = distinct >= _rows_needed(space)
    if _is_grouped(space) or distinct < LEAST_ROWS:
        return HEALTHY if enough else CANNOT_TELL
    if space.effective_rank < LOW_RANK * space.attainable:
        return COLLAPSED
    most = space.noise_share <= 1 - MOST
    if signal_step(space) > STEP and rank <= SOME_DIRECTIONS * width and not _is_outlying(space):
        counted = distinct > ROWS_TO_RANK * rank and space.group_share is not None
        few = rank <= FEW_DIRECTIONS * width or space.effective_rank < LOWISH_RANK * space.attainable
        if few and most and counted:
            return COLLAPSED
        if most or rank <= FEW_DIRECTIONS * width:
            return PARTLY if enough else CANNOT_TELL
    few = space.variance_rank < HANDFUL and width >= WIDE
    found = PARTLY if few or space.effective_rank < LOWISH_RANK * width else HEALTHY
    return found if enough else CANNOT_TELL


def _is_local(space: Space, distinct: int, found: str) -> bool:
    whole = space.effective_rank
    if found == COLLAPSED and signal_step(space) > STEP:
        whole = min(whole, space.signal_rank)
    enough = distinct > 2 * LID_NEIGHBOURS and space.lid_in_groups is not None
    return enough and space.lid_in_groups < min(LOCAL_LID, whole / 2)


def _numbers(space: Space) -> str:
    """Return the numbers that decide, as a clause."""
    width = space.dimensions
    clause = f"no direction of {width} stands out"
    if space.signal_rank:
        held = 100 * (1 - space.noise_share)
        step = signal_step(space)
        one = space.signal_rank == 1
        times = f"{step:.3g}" if step < 1000 else "over 1000"
        by = "without any noise" if step == math.inf else f"{times} times above the threshold of noise"
        clause = f"{space.signal_rank} of {width} directions {'stands' if one else 'stand'} out, {by}, and "
        clause += f"{'holds' if one else 'hold'} {held:.3g} % of the variance"
    rank = f"effective rank {space.effective_rank:.1f} of {space.attainable}"
    lid = ""
    if space.lid_in_groups is not None:
        lid = f", LID within groups {space.lid_in_groups:.2f}"
    elif space.samples - space.duplicates > 2 * LID_NEIGHBOURS:
        lid = ", LID within groups undefined, since most rows have all neighbours at one distance"
    return f"{clause}; {rank}, entropy rank of the variances {space.variance_rank:.1f}{lid}"
