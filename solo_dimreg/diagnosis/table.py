"""The table of all metrics of one or several diagnoses, as text."""

from __future__ import annotations

from collections.abc import Sequence

from solo_dimreg.diagnosis.diagnose import Diagnosis
from solo_dimreg.diagnosis.figures import judge
from solo_dimreg.diagnosis.neighbourhoods import LID_NEIGHBOURS, MANY_NEIGHBOURS

# The metrics of the summary: the label of each, and its decimals.
TABLE = {
    "samples": ("samples", 0),
    "dimensions": ("dimensions", 0),
    "mean_share": ("mean's share of the squared length", 3),
    "effective_rank": ("effective rank", 1),
    "filled": ("directions filled", 0),
    "lid": (f"LID (k = {LID_NEIGHBOURS})", 2),
    "lid_mle": ("LID, maximum likelihood", 2),
    "lid_512": (f"LID (k = {MANY_NEIGHBOURS})", 2),
    "two_nn": ("dimension, TwoNN", 2),
    "mst_dimension": ("dimension, spanning tree", 2),
    "nesum": ("NESum", 1),
    "rankme": ("RankMe", 1),
    "rankme_share": ("RankMe over the width", 3),
    "alpha_req": ("alpha-ReQ", 2),
    "off_diagonal_correlation": ("off-diagonal correlation", 3),
    "matrix_entropy": ("matrix entropy of order 2, nats", 2),
    "matrix_entropy_1": ("matrix entropy of order 1, nats", 2),
    "uniformity": ("uniformity", 2),
    "self_clustering": ("self-clustering", 3),
}


def summary_table(diagnoses: Sequence[Diagnosis]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the metrics as text, with a column for the features of each input."""
    columns = [(each, name, space) for each in diagnoses for name, space in each.spaces.items()]
    several = len(diagnoses) > 1
    header = ["", *(f"{each.source.name}, {name}" if several else name for each, name, _ in columns)]
    lines = [
        [label, *(_cell(getattr(space, figure), decimals) for _, _, space in columns)]
        for figure, (label, decimals) in TABLE.items()
        if any(getattr(space, figure) is not None for _, _, space in columns)
    ]
    verdicts = ["verdict", *(judge(space).kind for _, _, space in columns)]
    information = [each.information.get("mutual_information") for each, _, _ in columns]
    shared = [["I(R;Z), nats", *(_cell(value, 2) for value in information)]] if any(information) else []
    return header, [verdicts, *lines, *shared]


def _cell(value: float | None, decimals: int) -> str:
    return "–" if value is None else f"{value:.{decimals}f}"
