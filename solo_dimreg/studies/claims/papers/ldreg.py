"""The claims of LDReg."""

from __future__ import annotations

from solo_dimreg.studies.claims import rows
from solo_dimreg.studies.claims.claim import Claim, Number
from solo_dimreg.studies.claims.experiments import STEP
from solo_dimreg.studies.claims.numbers import equal, exceeds, ladder
from solo_dimreg.studies.claims.rows import LDREG

PAPER = "LDReg (Huang et al., ICLR 2024)"
BASES = {
    "simclr": ("SimCLR", rows.SIMCLR, "LID 18.8 to 20.0", "effective rank 470.2 to 529.6", "64.3 to 64.8"),
    "byol": ("BYOL", rows.BYOL, "LID 15.9 to 22.3", "effective rank 583.8 to 594.0", "67.6 to 68.5"),
    "vicreg": ("VICReg", rows.VICREG, "LID 21.5 to 22.5", "effective rank 546.7 to 602.4", "66.7 to 66.9"),
    "mocov2plus": ("MoCo", rows.MOCO, "LID 17.1 to 22.3", "effective rank 595.0 to 651.8", "68.7 to 69.6"),
    "barlow_twins": (
        "Barlow Twins", rows.BARLOW, "LID 20.8 to 24.1", "effective rank 602.1 to 754.0", "65.5 to 65.6",
    ),
}  # fmt: skip


def ldreg_claims() -> list[Claim]:
    """Return all claims of LDReg."""
    return [*_of_every_method(), *_of_the_term(), _transfer("simclr"), _transfer("byol"), _cost()]


def _of_every_method() -> list[Claim]:
    claims = []
    for name, (called, base, lid, rank, accuracy) in BASES.items():
        ours = LDREG[name]
        for key, metric, words, published in (
            ("lid", "lid", "LID", lid),
            ("rank", "effective_rank", "effective rank", rank),
            ("accuracy", "linear_acc1", "linear accuracy", accuracy),
        ):
            claims.append(
                Claim(
                    f"ldreg-{key}-{name}", PAPER, "main results", f"LDReg raises the {words} of {called}.",
                    published, (base, ours), (exceeds(metric, ours, base),),
                    "points" if key == "accuracy" else "", note=rows.NOTE,
                )
            )  # fmt: skip
    return claims


def _of_the_term() -> list[Claim]:
    ours, downwards = LDREG["simclr"], (*reversed(rows.MINLID), rows.SIMCLR)
    lowest = rows.MINLID[-1].name
    return [
        Claim(
            "ldreg-rank-paper", PAPER, "main results",
            "LDReg raises the effective rank of SimCLR at the paper's weight.", "470.2 to 529.6",
            (rows.SIMCLR, rows.LDREG_PAPER), (exceeds("effective_rank", rows.LDREG_PAPER, rows.SIMCLR),),
        ),
        Claim(
            "ldreg-weight", PAPER, "appendix", "A larger weight lowers the effective rank.",
            "500, 430, 320 at 0.01, 0.05, 0.1", (rows.LDREG_PAPER, ours),
            (exceeds("effective_rank", rows.LDREG_PAPER, ours),), note="Weights 0.01 and 0.2.",
        ),
        Claim(
            "ldreg-l1-l2", PAPER, "section 5", "The L1 and the L2 form are equally good.",
            "nearly equal", (ours, rows.LDREG_L2), equal("linear_acc1", ours, rows.LDREG_L2, 3.0), "points",
            note="Equal means less than 3 points apart, by two one-sided tests.",
        ),
        Claim(
            "minlid", PAPER, "appendix G.2",
            "Lowering the LID lowers LID, effective rank and accuracy; a larger weight lowers them more.",
            "at 0, 0.01, 0.1, 1: effective rank 470.2, 150.7, 15.0, 1.0; accuracy 64.3, 64.2, 63.1, 46.4",
            (rows.SIMCLR, *rows.MINLID),
            tuple(n for name in ("effective_rank", "lid", "linear_acc1") for n in ladder(name, downwards)),
        ),
        Claim(
            "minlid-collapse", PAPER, "appendix G.2", "At the largest weight, it collapses completely.",
            "complete collapse at 10", (rows.MINLID[-1],),
            (Number("2 minus the effective rank", lambda results: 2 - results[lowest]["effective_rank"]),),
        ),
        Claim(
            "ldreg-cov-var", PAPER, "appendix",
            "Covariance and variance terms raise BYOL's effective rank more than LDReg, and its LID less.",
            "effective rank 798.4 and 594.0, LID 16.8 and 22.3",
            (rows.BYOL, LDREG["byol"], rows.COV_VAR),
            (
                exceeds("effective_rank", rows.COV_VAR, LDREG["byol"]),
                exceeds("effective_rank", rows.COV_VAR, rows.BYOL),
                exceeds("lid", LDREG["byol"], rows.COV_VAR),
            ),
            note="The weight is 0.01; of 0.01, 0.1 and 1 it has the best accuracy on seeds 102 and 103.",
        ),
    ]  # fmt: skip


def _transfer(name: str) -> Claim:
    called, base = BASES[name][:2]
    return Claim(
        f"ldreg-transfer-{name}", PAPER, "table 2",
        f"LDReg raises the linear accuracy of {called} on other data.",
        "SimCLR: CIFAR-100 71.6 to 75.1 after 1000 epochs, 71.2 to 70.6 after 100",
        (base, LDREG[name]), (exceeds("transfer_acc1", LDREG[name], base),), "points",
        measures=("transfer_acc1",), note=rows.NOTE,
    )  # fmt: skip


def _cost() -> Claim:
    return Claim(
        "ldreg-cost", PAPER, "appendix", "LDReg costs hardly anything: at most 3 % of a step.",
        "27.8 h without, 27.1 h with it", (),
        (Number("3 minus the percent that it adds to a step", lambda results: 3 - results["step"]["ldreg"]),),
        "%", experiments=(STEP,), note="The step is a ResNet-18's on 256 images of 32 x 32, on a CPU.",
    )  # fmt: skip
