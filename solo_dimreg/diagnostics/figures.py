"""The figures of one set of features."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from solo_dimreg.functional import effective_rank, geometric_mean_lid, singular_spectrum

# LDReg tracks the LID with 32 neighbours (and with 512, more than small data sets can spare).
LID_NEIGHBOURS = 32


def representation_figures(features: Tensor) -> dict[str, Any]:
    """Global and local dimensionality of features (N, D).

    Returns:
        ``effective_rank`` of the centred features, ``lid`` (geometric mean over the points, k = 32), and the
        ``spectrum``: the D singular values of their covariance, descending.
    """
    return {
        "effective_rank": float(effective_rank(features, center=True)),
        "lid": float(geometric_mean_lid(features, k=LID_NEIGHBOURS)),
        "spectrum": singular_spectrum(features).tolist(),
    }
