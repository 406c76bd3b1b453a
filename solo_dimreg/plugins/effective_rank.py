"""The built-in plugin of the effective rank: the regularizer ``effective_rank``, and metrics."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from solo_dimreg import functional
from solo_dimreg.nn import EffectiveRank
from solo_dimreg.plugins.hookspecs import hookimpl


@hookimpl
def register_regularizers() -> dict[str, type]:
    """The entropy of the spectrum, to be raised."""
    return {"effective_rank": EffectiveRank}


@hookimpl
def register_metrics() -> dict[str, Callable[[Tensor], Tensor]]:
    """Figures of dimensionality and spread, each of features (B, D)."""
    return {
        "effective_rank": lambda features: functional.effective_rank(features, center=True),
        "rankme": functional.rankme,
        "alpha_req": functional.alpha_req,
        "matrix_entropy": functional.matrix_entropy,
        "uniformity": functional.uniformity,
        "off_diagonal_correlation": functional.off_diagonal_correlation,
        "nesum": functional.nesum,
        "rankme_share": functional.rankme_share,
        "mean_share": functional.mean_share,
        "self_clustering": functional.self_clustering,
        "two_nn": functional.two_nn,
        "mst_dimension": functional.mst_dimension,
    }
