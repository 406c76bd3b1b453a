"""The claims of AdaDim."""

from __future__ import annotations

from solo_dimreg.studies.claims import rows
from solo_dimreg.studies.claims.claim import Claim
from solo_dimreg.studies.claims.numbers import exceeds, exceeds_at_the_end, rise, slower
from solo_dimreg.studies.claims.rows import ADADIM, SIMCLR, VICREG

PAPER = "AdaDim (Kokilepersaud et al., 2025)"
EARLY = 0.4  # the end of the early part of the training


def adadim_claims() -> list[Claim]:
    """Return all claims of AdaDim."""
    return [*_of_the_curves(), *_of_the_weights()]


def _of_the_curves() -> list[Claim]:
    return [
        Claim(
            "adadim-early", PAPER, "findings",
            "Early in training, decorrelation raises H(R), the effective rank, and I(R;Z) (VICReg's run).",
            "a figure",
            (VICREG,),
            (
                rise(VICREG, "mutual_information", 0, EARLY),
                rise(VICREG, "effective_rank", 0, EARLY),
            ),
        ),
        Claim(
            "adadim-late", PAPER, "findings",
            "Late in training, uniformity raises H(R) while I(R;Z) flattens (SimCLR's run).", "a figure",
            (SIMCLR,),
            (
                rise(SIMCLR, "effective_rank", EARLY, 1),
                slower(SIMCLR, "mutual_information", EARLY),
            ),
        ),
        Claim(
            "adadim-between", PAPER, "findings",
            "AdaDim's I(R;Z) ends between its parents': above SimCLR's, below VICReg's.",
            "a figure",
            (SIMCLR, VICREG, ADADIM),
            (
                exceeds_at_the_end("mutual_information", ADADIM, SIMCLR),
                exceeds_at_the_end("mutual_information", VICREG, ADADIM),
            ),
            "nats",
        ),
        Claim(
            "adadim-alpha", PAPER, "section on the method", "Alpha rises during the training.", "a figure",
            (ADADIM,), (rise(ADADIM, "adadim_alpha", 0, 1),),
        ),
    ]  # fmt: skip


def _of_the_weights() -> list[Claim]:
    schedules = {"fixed": rows.FIXED, "linear": rows.LINEAR, "cosine": rows.COSINE}
    ablations = [
        Claim(
            f"adadim-{name}", PAPER, "ablations", f"Adaptive alpha is better than {name} alpha.",
            "up to 3 points", (ADADIM, row), (exceeds("linear_acc1", ADADIM, row),), "points",
            note="Fixed alpha is 0.5." if name == "fixed" else "",
        )
        for name, row in schedules.items()
    ]  # fmt: skip
    below, none, above = rows.MORE_INFORMATION, rows.NO_INFORMATION, rows.LESS_INFORMATION
    return [
        Claim(
            "adadim-accuracy", PAPER, "tables", "AdaDim is better than both of its parents.",
            "up to 3 points", (SIMCLR, VICREG, ADADIM),
            (exceeds("linear_acc1", ADADIM, SIMCLR), exceeds("linear_acc1", ADADIM, VICREG)), "points",
        ),
        *ablations,
        Claim(
            "adadim-gamma-information", PAPER, "section on the method",
            "I(R;Z) at the end falls as gamma grows.", "a figure", (below, none, above),
            (
                exceeds_at_the_end("mutual_information", below, none),
                exceeds_at_the_end("mutual_information", none, above),
            ),
            "nats", note="Gamma is -0.3, 0 and 0.3, chosen on seeds 102 and 103 for a visible effect.",
        ),
        Claim(
            "adadim-gamma-accuracy", PAPER, "ablations", "Regularizing I(R;Z) raises the linear accuracy.",
            "no number is known here", (none, above), (exceeds("linear_acc1", above, none),), "points",
            note="Gamma is 0.3 against 0.",
        ),
    ]  # fmt: skip
