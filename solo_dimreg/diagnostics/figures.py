"""The figures of one set of features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from solo_dimreg.functional import (
    effective_rank,
    geometric_mean_lid,
    off_diagonal_correlation,
    singular_spectrum,
)

# LDReg tracks the LID with 32 neighbours (and with 512, more than small data sets can spare).
LID_NEIGHBOURS = 32
MAX_SAMPLES = 10_000


def representation_figures(features: Tensor, embeddings: Tensor | None = None) -> dict[str, Any]:
    """Global and local dimensionality of features (N, D) and embeddings (N, d).

    Returns:
        ``effective_rank`` of the centred features, ``lid`` (geometric mean over the points, k = 32), the
        ``spectrum`` (the D singular values of their covariance, descending), and ``z_correlation``, the mean
        absolute off-diagonal correlation of the embeddings, None without them. Of more than 10,000 points,
        those of a fixed random choice of 10,000.
    """
    if len(features) > MAX_SAMPLES:  # neighbours are sought among all pairs
        chosen = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))[:MAX_SAMPLES]
        features = features[chosen]
        embeddings = None if embeddings is None else embeddings[chosen]
    correlation = None if embeddings is None else float(off_diagonal_correlation(embeddings))
    return {
        "z_correlation": correlation,
        "effective_rank": float(effective_rank(features, center=True)),
        "lid": float(geometric_mean_lid(features, k=LID_NEIGHBOURS)),
        "spectrum": singular_spectrum(features).tolist(),
    }
