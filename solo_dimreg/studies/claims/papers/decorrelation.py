"""The claims of feature decorrelation."""

from __future__ import annotations

from solo_dimreg.studies.claims import rows
from solo_dimreg.studies.claims.claim import Claim, Number
from solo_dimreg.studies.claims.numbers import above, exceeds, ladder
from solo_dimreg.studies.claims.rows import BN, DBN, PLAIN, SHUFFLED

HALF = "The short settings use half the learning rate: with all of it, Shuffled-DBN failed on seeds 102, 103."
PAPER = "Feature decorrelation (Hua et al., ICCV 2021)"


def decorrelation_claims() -> list[Claim]:
    """Return all claims of feature decorrelation."""
    return [
        Claim(
            "decorrelation-none", PAPER, "section 4",
            "Without standardization, accuracy falls below that of bn.", "complete collapse",
            (PLAIN, BN), (exceeds("linear_acc1", BN, PLAIN),), "points", note=HALF,
        ),
        Claim(
            "decorrelation-collapse", PAPER, "section 4",
            "Without standardization, the embeddings collapse completely; with bn, they do not.",
            "complete collapse", (PLAIN, BN),
            (
                Number(
                    "1 % minus the embeddings' standard deviation over their length, of none",
                    lambda results: 0.01 - results["none"]["z_spread"],
                ),
                Number("the same ratio of bn minus 1 %", lambda results: results["bn"]["z_spread"] - 0.01),
            ),
            note=HALF,
        ),
        Claim(
            "decorrelation-bn", PAPER, "section 4",
            "With batch normalization, a dimensional collapse remains: the axes correlate strongly.",
            "a figure",
            (BN,), (above("z_correlation", BN, 0.5),), note=HALF,
        ),
        Claim(
            "decorrelation-correlation", PAPER, "section 5", "Correlation: bn > dbn > shuffled_dbn.",
            "a figure", (BN, DBN, SHUFFLED), ladder("z_correlation", (SHUFFLED, DBN, BN)), note=HALF,
        ),
        Claim(
            "decorrelation-accuracy", PAPER, "tables", "Accuracy: bn < dbn < shuffled_dbn.",
            "CIFAR-10: DBN 86.32, Shuffled-DBN 89.50", (BN, DBN, SHUFFLED),
            ladder("linear_acc1", (BN, DBN, SHUFFLED)), "points", note=HALF,
        ),
        *_at_the_end(),
    ]  # fmt: skip


def _at_the_end() -> list[Claim]:
    bases = {"BYOL": rows.BYOL, "SimCLR": rows.SIMCLR, "SimSiam": rows.SIMSIAM, "Barlow Twins": rows.BARLOW}
    return [
        Claim(
            f"decorrelation-end-{base.name}", PAPER, "the first author's code",
            f"Shuffled-DBN at the end of {called}'s projector raises the linear accuracy.",
            "an ablation; its numbers are not known here", (base, rows.SHUFFLED_END[base.name]),
            (exceeds("linear_acc1", rows.SHUFFLED_END[base.name], base),), "points",
        )
        for called, base in bases.items()
    ]  # fmt: skip
