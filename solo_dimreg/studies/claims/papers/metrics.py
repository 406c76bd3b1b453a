"""The claims about metrics that need no labels."""

from __future__ import annotations

from collections.abc import Sequence

from solo_dimreg.studies.claims.claim import Claim, Number
from solo_dimreg.studies.claims.experiments import PIXELS
from solo_dimreg.studies.claims.numbers import tau
from solo_dimreg.studies.claims.papers.ldreg import PAPER as LDREG

TOLERANCE = 0.2  # of the dimension
STRONG = 0.3  # the least tau for which a metric counts as ordering networks


def metric_claims(claims: Sequence[Claim]) -> list[Claim]:
    """Return all claims about metrics; they use the rows of all the given claims."""
    rows = tuple({row.name: row for claim in claims for row in claim.rows}.values())

    def error(name: str) -> Number:
        return Number(
            f"mean relative error of {name} minus that of the LID",
            lambda results: results["pixels"][name]["error"] - results["pixels"]["lid"]["error"],
        )

    room = Number(
        f"{TOLERANCE:g} minus the mean relative error of the LID",
        lambda results: TOLERANCE - results["pixels"]["lid"]["error"],
    )
    metrics = {
        "rankme": ("RankMe (Garrido et al., ICML 2023)", "RankMe", None, ()),
        "lidar": ("LiDAR (Thilak et al., ICLR 2024)", "LiDAR", None, ("lidar",)),
        "alpha_req": ("alpha-ReQ (Agrawal et al., NeurIPS 2022)", "alpha-ReQ, best at 1,", 1.0, ()),
        "effective_rank": ("Effective rank (Roy & Vetterli 2007)", "the effective rank", None, ()),
        "lid": (LDREG, "LID", None, ()),
    }

    def orders(key: str, best: float | None) -> Number:
        says = f"Kendall's tau of {key} and linear accuracy over {len(rows)} rows minus {STRONG:g}"
        return Number(says, lambda results: tau(results, key, rows, best) - STRONG)

    better = Number(
        "Kendall's tau of LiDAR minus that of RankMe",
        lambda results: tau(results, "lidar", rows) - tau(results, "rankme", rows),
    )
    return [
        Claim(
            "lid-finds-the-dimension", LDREG, "section 3",
            "On sprites with 1 to 8 free factors, the LID of the pixels finds their number; ranks do not.",
            "theory", (), (room, error("effective_rank"), error("rankme")), experiments=(PIXELS,),
        ),
        *(
            Claim(
                f"{key.replace('_', '-')}-orders", paper, "main claim",
                f"Without labels, {says} orders trained networks by their linear accuracy.", "a figure",
                rows, (orders(key, best),), measures=measures, note=f"A tau above {STRONG:g} counts.",
            )
            for key, (paper, says, best, measures) in metrics.items()
        ),
        Claim(
            "lidar-better", metrics["lidar"][0], "main claim", "LiDAR orders them better than RankMe.",
            "a figure", rows, (better,), measures=("lidar",),
        ),
    ]  # fmt: skip
