"""The verdict on a collapse, from the metrics of the features."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from solo_dimreg.metrics.numbers import Space
from solo_dimreg.metrics.registry import EMPTY_DIRECTION

# Features whose standard deviation is below 1 % of their length count as one point.
COMPLETE_SPREAD = 1e-4
GLOBAL_RANK = 0.05
GLOBAL_FILLED = 0.25
LOCAL_LID = 2.5


@dataclass(frozen=True)
class Verdict:
    """A verdict on a collapse: ``kind`` in a word or two, and ``reason`` with the numbers behind it."""

    kind: str
    reason: str

    def as_dict(self) -> dict[str, str]:
        """Return the verdict for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the verdict in one line."""
        return f"{self.kind}: {self.reason}"


THRESHOLDS = {
    "complete collapse": f"variance below {COMPLETE_SPREAD:g} of the mean squared length",
    "global collapse": f"effective rank below {GLOBAL_RANK:.0%} of the attainable one, or fewer than "
    f"{GLOBAL_FILLED:.0%} of the directions with over {EMPTY_DIRECTION:g} of the leading one's variance",
    "local collapse": f"LID below {LOCAL_LID:g} and below half the effective rank",
}


def judge(space: Space) -> Verdict:
    """Return the verdict by ``THRESHOLDS``: complete, global or local collapse, in this order, or healthy."""
    if space.spread < COMPLETE_SPREAD:
        return Verdict(
            "complete collapse",
            f"all features are nearly one point: their variance is {space.spread:.1e} of their mean squared "
            f"length (threshold {COMPLETE_SPREAD:g}).",
        )
    filled = (
        f"effective rank {space.effective_rank:.1f} of {space.attainable} (threshold {GLOBAL_RANK:.0%}), "
        f"{space.filled} of {space.attainable} directions filled (threshold {GLOBAL_FILLED:.0%})"
    )
    threshold = min(LOCAL_LID, space.effective_rank / 2)
    lid = f"LID {space.lid:.2f} (threshold {threshold:.3g})"
    few_filled = space.filled < GLOBAL_FILLED * space.attainable
    if space.effective_rank < GLOBAL_RANK * space.attainable or few_filled:
        return Verdict("global collapse", f"the features fill few of their dimensions: {filled}; {lid}.")
    if space.lid < threshold:
        reason = (
            f"the features fill few dimensions around each point: {lid}, although they fill many globally: "
            f"{filled}. Images with few dimensions of their own cause this without a collapse."
        )
        return Verdict("local collapse", reason)
    return Verdict(
        "healthy",
        f"the features fill their dimensions globally: {filled}, and locally: {lid}. More than that is not "
        "better by itself.",
    )
