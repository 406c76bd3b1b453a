"""The built-in plugin of the effective rank: the regularizer ``effective_rank``, and metrics."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from solo_dimreg import functional
from solo_dimreg.functional._rows import of_few, of_few_distinct
from solo_dimreg.nn import EffectiveRank
from solo_dimreg.plugins.hookspecs import hookimpl


@hookimpl
def register_regularizers() -> dict[str, type]:
    """Return the regularizer that raises the effective rank."""
    return {"effective_rank": EffectiveRank}


@hookimpl
def register_metrics() -> dict[str, Callable[[Tensor], Tensor]]:
    """Return the metrics of dimensionality and spread, each a function of features (B, D)."""
    return {
        "effective_rank": centred_effective_rank,
        "rankme": functional.rankme,
        "alpha_req": functional.alpha_req,
        "matrix_entropy": partial(of_few, functional.matrix_entropy),
        "uniformity": partial(of_few, functional.uniformity),
        "off_diagonal_correlation": functional.off_diagonal_correlation,
        "nesum": functional.nesum,
        "rankme_share": functional.rankme_share,
        "mean_share": functional.mean_share,
        "self_clustering": partial(of_few, functional.self_clustering),
        "two_nn": partial(of_few_distinct, functional.two_nn),
        "mst_dimension": partial(of_few_distinct, functional.mst_dimension),
    }


def centred_effective_rank(features: Tensor) -> Tensor:
    """Return the effective rank of the features (B, D) around their mean."""
    return functional.effective_rank(features, center=True)
