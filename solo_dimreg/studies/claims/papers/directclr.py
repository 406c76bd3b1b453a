"""The claims of DirectCLR."""

from __future__ import annotations

from solo_dimreg.studies.claims import rows
from solo_dimreg.studies.claims.claim import Claim, Number
from solo_dimreg.studies.claims.experiments import IMPLICIT_REGULARIZATION, STRONG_AUGMENTATION
from solo_dimreg.studies.claims.numbers import exceeds, ladder

PAPER = "DirectCLR (Jing et al., ICLR 2022)"


def directclr_claims() -> list[Claim]:
    """Return all claims of DirectCLR."""
    steps = (rows.NONE, rows.SINGLE, rows.DIRECT, rows.TWO_LAYERS)
    return [
        *_toys(),
        Claim(
            "directclr-accuracy", PAPER, "table 1", "DirectCLR is better than no projector.",
            "51.5 to 62.7", (rows.NONE, rows.DIRECT), (exceeds("linear_acc1", rows.DIRECT, rows.NONE),),
            "points",
        ),
        Claim(
            "directclr-ladder", PAPER, "table 1",
            "Accuracy: no projector < linear projector < DirectCLR < two-layer projector.",
            "51.5, 61.1, 62.7, 66.5", steps, ladder("linear_acc1", steps), "points",
        ),
        Claim(
            "directclr-rank", PAPER, "figure 10",
            "Without a projector, the spectrum falls off; with DirectCLR, it falls off less.",
            "a figure", (rows.NONE, rows.DIRECT), (exceeds("effective_rank", rows.DIRECT, rows.NONE),),
        ),
        Claim(
            "directclr-dim", PAPER, "figure",
            "Accuracy over dim is best inside the range: at the paper's share, not at few or at all.",
            "best at 360 of 2048", (rows.FEW, rows.DIRECT, rows.NONE),
            (exceeds("linear_acc1", rows.DIRECT, rows.FEW), exceeds("linear_acc1", rows.DIRECT, rows.NONE)),
            "points", note="The values of dim are 8, the paper's share (45 of 256), and all.",
        ),
    ]  # fmt: skip


def _toys() -> list[Claim]:
    return [
        Claim(
            "directclr-augmentation", PAPER, "section 4",
            "Strong augmentation of some directions collapses them; weak augmentation does not.",
            "a figure", (),
            (
                Number(
                    "gap of the log spectrum at noise 1.5 minus 1",
                    lambda results: results["strong_augmentation"]["gap_1.5"] - 1,
                ),
                Number(
                    "1 minus the same gap at noise 0.01",
                    lambda results: 1 - results["strong_augmentation"]["gap_0.01"],
                ),
            ),
            experiments=(STRONG_AUGMENTATION,),
        ),
        Claim(
            "directclr-layers", PAPER, "section 5",
            "In two layers, the small singular values stay behind, and the layers align.", "a figure", (),
            (
                Number(
                    "growth of the first layer's middle singular value minus that of its smallest",
                    lambda results: results["implicit_regularization"]["middle_growth"]
                    - results["implicit_regularization"]["smallest_growth"],
                ),
                Number(
                    "cosine of the leading subspaces after minus before the training",
                    lambda results: results["implicit_regularization"]["cosine_after"]
                    - results["implicit_regularization"]["cosine_before"],
                ),
            ),
            experiments=(IMPLICIT_REGULARIZATION,),
            note="A first version used the largest singular value instead of the middle one. It starts at "
            "its final size, and the number was below 0 on seeds 5 to 12.",
        ),
    ]  # fmt: skip
