"""The claims of the four papers that can be tried in minutes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from solo_dimreg.studies.claims.claim import Claim, Number, Results
from solo_dimreg.studies.suites import Row

LDREG = "LDReg (Huang et al., ICLR 2024)"
DIRECTCLR = "DirectCLR (Jing et al., ICLR 2022)"
DECORRELATION = "Feature decorrelation (Hua et al., ICCV 2021)"
ADADIM = "AdaDim (Kokilepersaud et al., 2025)"
NAMES = {
    "linear_acc1": "linear accuracy",
    "effective_rank": "effective rank",
    "lid": "LID",
    "z_correlation": "correlation of the embeddings",
}


def _ldreg(name: str, config: str, method: str, *options: str) -> Row:
    """A baseline's config with LDReg, which waits for the first epoch."""
    block = ("+regularizers.ldreg.warmup_epochs=1", *(f"+regularizers.ldreg.{option}" for option in options))
    return Row(name, config, (f"method={method}", f"name={name}", *block))


def _of(config: str, name: str, *overrides: str) -> Row:
    return Row(name, config, (f"name={name}", *overrides))


SIMCLR, BYOL, VICREG = Row("simclr", "simclr"), Row("byol", "byol"), Row("vicreg", "vicreg")
# In so few steps the paper's weights show little: five times as much, as in our configs of the digits.
LDREG_SIMCLR = _ldreg("ldreg_simclr", "simclr", "ldreg_simclr", "weight=0.05")
LDREG_BYOL = _ldreg("ldreg_byol", "byol", "ldreg_byol", "weight=0.025")
LDREG_VICREG = _ldreg("ldreg_vicreg", "vicreg", "ldreg_vicreg", "weight=0.125")
LDREG_PAPER = _ldreg("ldreg_simclr_paper", "simclr", "ldreg_simclr", "weight=0.01")
LDREG_STRONG = _ldreg("ldreg_simclr_strong", "simclr", "ldreg_simclr", "weight=0.5")
MINLID = tuple(
    _ldreg(f"minlid_{weight:g}", "simclr", "minlid_simclr", f"weight={weight}") for weight in (0.1, 1, 10)
)
NONE = _of("infonce", "infonce")
SINGLE = _of("infonce", "linear_projector", "method_kwargs.mode=single")
TWO_LAYERS = _of("infonce", "two_layers", "method_kwargs.mode=simclr")
DIRECT = Row("directclr", "directclr")
PLAIN, BN, DBN, SHUFFLED = (
    _of("shuffled_dbn", name, f"method_kwargs.normalization={name}")
    for name in ("none", "bn", "dbn", "shuffled_dbn")
)
ADADIM_ROW = Row("adadim", "adadim")


def _more(figure: str, more: Row, less: Row) -> Number:
    """That one row has more of a figure than another."""

    def difference(results: Results) -> float:
        return float(results[more.name][figure] - results[less.name][figure])

    return Number(f"{NAMES[figure]} of {more.name} minus that of {less.name}", difference)


def _ladder(figure: str, rows: Sequence[Row]) -> tuple[Number, ...]:
    """From the row that has least to the one that has most."""
    return tuple(_more(figure, more, less) for less, more in pairwise(rows))


def _above(figure: str, row: Row, threshold: float) -> Number:
    return Number(
        f"{NAMES[figure]} of {row.name} minus {threshold:g}",
        lambda results: float(results[row.name][figure]) - threshold,
    )


def _more_at_the_end(figure: str, more: Row, less: Row, name: str) -> Number:
    """The same of a monitored figure after the last epoch."""

    def difference(results: Results) -> float:
        return results[more.name]["curves"][figure][-1] - results[less.name]["curves"][figure][-1]

    return Number(f"{name} of {more.name} minus that of {less.name}", difference)


def _curve(row: Row, figure: str, first: int, last: int, says: str) -> Number:
    """The change of a monitored figure between two epochs."""

    def change(results: Results) -> float:
        curve = results[row.name]["curves"][figure]
        return curve[last] - curve[first]

    return Number(says, change)


def builtin_claims() -> list[Claim]:
    """All of them, by paper."""
    return [*_of_ldreg(), *_of_directclr(), *_of_decorrelation(), *_of_adadim()]


def _of_ldreg() -> list[Claim]:
    raises = "LID 18.8 to 20.0 (SimCLR), 15.9 to 22.3 (BYOL), 21.5 to 22.5 (VICReg)"
    pairs = ((SIMCLR, LDREG_SIMCLR), (BYOL, LDREG_BYOL), (VICREG, LDREG_VICREG))
    claims = [
        Claim(
            f"ldreg-lid-{base.name}", LDREG, "main results", f"LDReg raises the LID of {base.name}.", raises,
            (base, ours), (_more("lid", ours, base),),
        )
        for base, ours in pairs
    ]  # fmt: skip
    claims += [
        Claim(
            f"ldreg-accuracy-{base.name}", LDREG, "main results",
            f"LDReg raises the linear accuracy of {base.name}.",
            "64.3 to 64.8 (SimCLR), 67.6 to 68.5 (BYOL), 66.7 to 66.9 (VICReg)",
            (base, ours), (_more("linear_acc1", ours, base),), "points",
        )
        for base, ours in pairs
    ]  # fmt: skip
    return [
        *claims,
        Claim(
            "ldreg-rank", LDREG, "main results", "LDReg raises the effective rank, at the paper's weight.",
            "470.2 to 529.6 (SimCLR)", (SIMCLR, LDREG_PAPER),
            (_more("effective_rank", LDREG_PAPER, SIMCLR),),
        ),
        Claim(
            "ldreg-weight", LDREG, "appendix", "A larger weight lowers the effective rank.",
            "500, 430, 320 at 0.01, 0.05, 0.1", (LDREG_PAPER, LDREG_STRONG),
            (_more("effective_rank", LDREG_PAPER, LDREG_STRONG),),
        ),
        Claim(
            "minlid", LDREG, "appendix G.2",
            "Lowering the LID lowers LID, effective rank and accuracy, the more the larger the weight.",
            "effective rank 470.2, 150.7, 15.0, 1.0; accuracy 64.3, 64.2, 63.1, 46.4", (SIMCLR, *MINLID),
            tuple(
                number
                for figure in ("effective_rank", "lid", "linear_acc1")
                for number in _ladder(figure, (*reversed(MINLID), SIMCLR))
            ),
        ),
    ]  # fmt: skip


def _of_directclr() -> list[Claim]:
    return [
        Claim(
            "directclr-accuracy", DIRECTCLR, "table 1", "DirectCLR is better than no projector.",
            "51.5 to 62.7", (NONE, DIRECT), (_more("linear_acc1", DIRECT, NONE),), "points",
        ),
        Claim(
            "directclr-ladder", DIRECTCLR, "table 1",
            "Accuracy: no projector < linear projector < DirectCLR < two-layer projector.",
            "51.5, 61.1, 62.7, 66.5", (NONE, SINGLE, DIRECT, TWO_LAYERS),
            _ladder("linear_acc1", (NONE, SINGLE, DIRECT, TWO_LAYERS)), "points",
        ),
        Claim(
            "directclr-rank", DIRECTCLR, "figure 10",
            "Without a projector the spectrum falls off, with DirectCLR it does not.",
            "a figure", (NONE, DIRECT), (_more("effective_rank", DIRECT, NONE),),
        ),
    ]  # fmt: skip


def _of_decorrelation() -> list[Claim]:
    return [
        Claim(
            "decorrelation-none", DECORRELATION, "section 4",
            "Without standardization accuracy falls below that of bn.",
            "complete collapse", (PLAIN, BN), (_more("linear_acc1", BN, PLAIN),), "points",
        ),
        Claim(
            "decorrelation-bn", DECORRELATION, "section 4",
            "Batch normalization keeps from complete collapse, but its axes correlate strongly.",
            "a figure", (BN,), (_above("z_correlation", BN, 0.5), _above("linear_acc1", BN, 50.0)),
        ),
        Claim(
            "decorrelation-correlation", DECORRELATION, "section 5", "Correlation: bn > dbn > shuffled_dbn.",
            "a figure", (BN, DBN, SHUFFLED), _ladder("z_correlation", (SHUFFLED, DBN, BN)),
        ),
        Claim(
            "decorrelation-accuracy", DECORRELATION, "tables", "Accuracy: bn < dbn < shuffled_dbn.",
            "CIFAR-10: DBN 86.32, Shuffled-DBN 89.50", (BN, DBN, SHUFFLED),
            _ladder("linear_acc1", (BN, DBN, SHUFFLED)), "points",
        ),
    ]  # fmt: skip


def _of_adadim() -> list[Claim]:
    return [
        Claim(
            "adadim-early", ADADIM, "findings",
            "Early in training, decorrelation raises H(R) and with it I(R;Z) (VICReg's run).", "a figure",
            (VICREG,),
            (
                _curve(VICREG, "mutual_information", 0, 2, "I(R;Z) after three epochs minus after one"),
                _curve(VICREG, "effective_rank", 0, 2, "H(R) after three epochs minus after one"),
            ),
            "nats",
        ),
        Claim(
            "adadim-between", ADADIM, "findings", "AdaDim's I(R;Z) ends between its parents'.", "a figure",
            (SIMCLR, VICREG, ADADIM_ROW),
            (
                _more_at_the_end("mutual_information", ADADIM_ROW, SIMCLR, "I(R;Z)"),
                _more_at_the_end("mutual_information", VICREG, ADADIM_ROW, "I(R;Z)"),
            ),
            "nats",
        ),
        Claim(
            "adadim-accuracy", ADADIM, "tables", "AdaDim is better than both of its parents.",
            "up to 3 points", (SIMCLR, VICREG, ADADIM_ROW),
            (_more("linear_acc1", ADADIM_ROW, SIMCLR), _more("linear_acc1", ADADIM_ROW, VICREG)), "points",
        ),
        Claim(
            "adadim-alpha", ADADIM, "section on the method", "Alpha rises during the training.", "a figure",
            (ADADIM_ROW,),
            (_curve(ADADIM_ROW, "adadim_alpha", 0, -1, "alpha at the end minus at the start"),),
        ),
    ]  # fmt: skip
