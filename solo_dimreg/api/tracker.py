"""The dimensionality of features that arrive batch by batch, in a training loop of the user's own."""

from __future__ import annotations

import math
from dataclasses import fields

import torch
from torch import Tensor

from solo_dimreg.diagnostics.figures import Space, describe_space, mutual_information
from solo_dimreg.diagnostics.moments import Moments
from solo_dimreg.diagnostics.streaming import FeatureStatistics
from solo_dimreg.functional._checks import check_int

SCALARS = [field.name for field in fields(Space) if field.type != "Tensor"]


class DimensionalityTracker:
    """Collects features over an epoch, say, and tells their figures; needs no Lightning.

    Spectra, and so the effective rank, RankMe and alpha-ReQ, are those of all samples, and so are the
    correlations. What needs the distances of pairs (LID, uniformity, entropies) is found among a uniform
    random choice of at most ``max_samples`` of them. Memory does not grow with the samples.

    Over several processes, :meth:`compute` is a collective call and gives each process the figures of the
    samples of all; their numbers may differ.

    Args:
        max_samples: The size of the random choice, over all processes.
        seed: Of the choice. None: the rank of the process. Trackers of one process that are to be merged
            choose independently with different ones.

    Example:
        >>> tracker = DimensionalityTracker()
        >>> for features in torch.randn(4, 100, 16):
        ...     tracker.update(features)
        >>> figures = tracker.compute()
        >>> figures["samples"], round(figures["effective_rank"])
        (400.0, 16)
    """

    def __init__(self, max_samples: int = 2_048, seed: int | None = None) -> None:
        check_int("max_samples", max_samples, minimum=3)
        self.max_samples, self.seed = max_samples, seed
        self.reset()

    def reset(self) -> None:
        """Forgets all samples."""
        self._statistics = FeatureStatistics(self.max_samples, self.seed)

    @torch.no_grad()
    def update(self, features: Tensor, embeddings: Tensor | None = None) -> None:
        """Adds a batch, on whatever device it is.

        Args:
            features: shape (B, D).
            embeddings: shape (B, d); with every batch, or with none.

        Raises:
            ValueError: the shapes do not fit each other or the batches before.
        """
        self._statistics.update(features, embeddings)

    def merge(self, other: DimensionalityTracker) -> None:
        """Adds all that another tracker has seen.

        Raises:
            ValueError: it has seen features of another width.
        """
        self._statistics.merge(other._statistics)

    @torch.no_grad()
    def compute(self) -> dict[str, float]:
        """The figures of all samples since the last reset, over all processes; goes on from there.

        Returns:
            The figures of :class:`solo_dimreg.diagnostics.figures.Space`, NaN where they are undefined; with
            embeddings, theirs with the prefix ``z_``, and I(R;Z).

        Raises:
            ValueError: there have been no samples.
        """
        total = self._statistics.gather()
        features, embeddings = total.features, total.embeddings
        sample = total.sample
        figures = _figures("", features, sample.features)
        if embeddings is not None and sample.embeddings is not None:
            figures |= _figures("z_", embeddings, sample.embeddings)
            if not math.isnan(figures["effective_rank"] + figures["z_effective_rank"]):
                figures |= mutual_information(sample.features, sample.embeddings)
        return figures


def _figures(prefix: str, moments: Moments, sample: Tensor) -> dict[str, float]:
    figures: dict[str, float | None] = dict.fromkeys(SCALARS, math.nan)
    figures |= {"samples": moments.count, "dimensions": len(moments.mean)}
    # Features that are not finite, which a training that diverges makes, have no others.
    if moments.variances.isfinite().all():
        figures |= describe_space(moments, sample).scalars()
    return {prefix + name: math.nan if value is None else float(value) for name, value in figures.items()}
