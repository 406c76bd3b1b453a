"""The claims of the newest remedies, and of the losses that they are based on."""

from __future__ import annotations

import math

from solo_dimreg.studies.claims import rows
from solo_dimreg.studies.claims.claim import Claim, Number, Results
from solo_dimreg.studies.claims.experiments import COLLAPSING, EMPTY_AXES, SPREADING
from solo_dimreg.studies.claims.numbers import exceeds
from solo_dimreg.studies.claims.rows import BYOL, LEJEPA, LEJEPA_WITHOUT, T_REGS, WASSERSTEIN

T_REGS_PAPER = "T-REGS (Mordacq et al., NeurIPS 2025)"
WASSERSTEIN_PAPER = "Wasserstein uniformity (Fang et al., ICLR 2024)"
UNFILLED, UNSEEN = 0.3, 0.02  # parts of a metric's range
FILLED = 0.9  # part of the dimensions


def newest_claims() -> list[Claim]:
    """Return all claims of the newest remedies."""
    return [_lejepa(), _visreg(), *_t_regs(), *_wasserstein(), *_spreading()]


def _lejepa() -> Claim:
    return Claim(
        "lejepa-collapse", "LeJEPA (Balestriero & LeCun, 2025)", "main claim",
        "SIGReg alone keeps the representation from collapsing, with no teacher and no stop-gradient.",
        "a figure", (LEJEPA, LEJEPA_WITHOUT),
        (exceeds("effective_rank", LEJEPA, LEJEPA_WITHOUT), exceeds("linear_acc1", LEJEPA, LEJEPA_WITHOUT)),
        note="It is compared with lambda 0: the invariance alone.",
    )  # fmt: skip


def _visreg() -> Claim:
    def growth(results: Results, name: str) -> float:
        healthy, collapsed = results["collapsing"][name]
        return math.log10(collapsed / healthy)

    of_what = "when the features shrink to 1e-4 of their length"
    stays = Number(f"log10 of the growth of VISReg's gradient {of_what}", lambda r: growth(r, "visreg"))
    vanishes = Number(
        f"minus 1 minus log10 of the growth of SIGReg's gradient {of_what}",
        lambda r: -1 - growth(r, "sigreg"),
    )
    return Claim(
        "visreg-gradient", "VISReg (Wu et al., 2026)", "figure 2",
        "As the features shrink to a point, the gradient of SIGReg vanishes; that of VISReg does not.",
        "a figure", (), (stays, vanishes), "decades", experiments=(COLLAPSING,),
        note="A gradient vanishes if it falls to less than a tenth.",
    )  # fmt: skip


def _t_regs() -> list[Claim]:
    pair = (BYOL, T_REGS)
    return [
        Claim(
            "t-regs-rank", T_REGS_PAPER, "main claim",
            "T-REGS prevents dimensional collapse: it raises the effective rank of BYOL.", "a figure", pair,
            (exceeds("effective_rank", T_REGS, BYOL),), note=rows.NOTE_ON_T_REGS,
        ),
        Claim(
            "t-regs-accuracy", T_REGS_PAPER, "table 1", "T-REGS raises the linear accuracy of BYOL.",
            "CIFAR-10 89.5 to 90.4, CIFAR-100 63.7 to 65.7", pair, (exceeds("linear_acc1", T_REGS, BYOL),),
            "points", note=rows.NOTE_ON_T_REGS,
        ),
    ]  # fmt: skip


def _wasserstein() -> list[Claim]:
    def rise(results: Results, name: str, span: float) -> float:
        full, half = results["empty_axes"][name]
        return (half - full) / span

    rises = "rise of {} when half of the axes are emptied, as a part of its range"
    return [
        Claim(
            "wasserstein-sensitive", WASSERSTEIN_PAPER, "section 4",
            "Wasserstein uniformity shows that axes are empty; uniformity does not.",
            "500 axes: 0.050 to 0.766, and -3.984 to -3.968", (),
            (
                Number(
                    f"{rises.format('Wasserstein uniformity')}, minus {UNFILLED:g}",
                    lambda results: rise(results, "wasserstein", math.sqrt(2)) - UNFILLED,
                ),
                Number(
                    f"{UNSEEN:g} minus the {rises.format('uniformity')}",
                    lambda results: UNSEEN - rise(results, "uniformity", 4.0),
                ),
            ),
            experiments=(EMPTY_AXES,), note="The numbers for 500 axes are from the released code.",
        ),
        Claim(
            "wasserstein-accuracy", WASSERSTEIN_PAPER, "table 2",
            "Wasserstein uniformity raises the linear accuracy of BYOL.",
            "CIFAR-10 89.5 to 90.1, CIFAR-100 63.7 to 65.2", (BYOL, WASSERSTEIN),
            (exceeds("linear_acc1", WASSERSTEIN, BYOL), exceeds("effective_rank", WASSERSTEIN, BYOL)),
            "points", note=rows.NOTE_ON_WASSERSTEIN,
        ),
    ]  # fmt: skip


def _spreading() -> list[Claim]:
    papers = {
        "uniformity": ("Uniformity (Wang & Isola, ICML 2020)", "Minimizing uniformity", "theorem 1"),
        "koleo": ("KoLeo (Sablayrolles et al., ICLR 2019)", "Minimizing KoLeo", "section 3"),
    }

    def filled(name: str) -> Number:
        return Number(
            f"effective rank over 16 of points that minimize {name}, minus {FILLED:g}",
            lambda results: results["spreading"][name]["effective_rank"] / 16 - FILLED,
        )

    def evener(name: str) -> Number:
        return Number(
            f"uniformity of the start minus that of points that minimize {name}",
            lambda results: (
                results["spreading"]["start"]["uniformity"] - results["spreading"][name]["uniformity"]
            ),
        )

    return [
        Claim(
            f"{name}-spreads", paper, place,
            f"{says} spreads points near a circle evenly over all dimensions of the sphere.", "theory", (),
            (filled(name), evener(name)), experiments=(SPREADING,),
        )
        for name, (paper, says, place) in papers.items()
    ]  # fmt: skip
