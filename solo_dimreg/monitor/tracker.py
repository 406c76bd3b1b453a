"""Metrics of features that arrive batch by batch, in the user's own training loop."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from solo_dimreg.functional._checks import check_int
from solo_dimreg.functional._rows import KEPT_ROWS
from solo_dimreg.metrics.moments import Moments
from solo_dimreg.metrics.numbers import OF_ONE_SET, describe_space, mutual_information
from solo_dimreg.metrics.streaming import FeatureStatistics


class DimensionalityTracker(FeatureStatistics):
    """A tracker that collects features, for example over an epoch, and computes their metrics.

    It needs no Lightning. Spectra and correlations, and with them the effective rank, RankMe and alpha-ReQ,
    cover all samples. Metrics that compare pairs (LID, uniformity, entropies) use a uniform random choice of
    at most ``max_samples`` (10,000) samples. Memory does not grow with more samples than that.

    Over several processes, :meth:`compute` is a collective call and gives each process the metrics of all
    samples. The processes may have different numbers of samples.

    Args:
        max_samples: The size of the random choice, over all processes.
        seed: The seed of the choice; None stands for the rank of the process. Give trackers of one process
            that will be merged different seeds, so that they choose independently.

    Example:
        >>> tracker = DimensionalityTracker()
        >>> for features in torch.randn(4, 100, 16):
        ...     tracker.update(features)
        >>> metrics = tracker.compute()
        >>> metrics["samples"], round(metrics["effective_rank"])
        (400.0, 16)
    """

    def __init__(self, max_samples: int = KEPT_ROWS, seed: int | None = None) -> None:
        check_int("max_samples", max_samples, minimum=3)
        self.max_samples, self.seed = max_samples, seed
        super().__init__(max_samples, seed)

    def reset(self) -> None:
        """Forget all samples."""
        super().__init__(self.max_samples, self.seed)

    @torch.no_grad()
    def compute(self) -> dict[str, float]:
        """Compute the metrics of all samples since the last reset, over all processes.

        The tracker keeps its samples, and continues with the next batch.

        Returns:
            The metrics of :class:`solo_dimreg.metrics.numbers.Space`, NaN where they are undefined. With
            embeddings, also their metrics with the prefix ``z_``, and I(R;Z).

        Raises:
            ValueError: there have been no samples.
        """
        total = self.gather()
        sample, moments = total.sample, total.embeddings
        numbers = _numbers("", total.features, sample["features"])
        if moments is not None:
            numbers |= _numbers("z_", moments, sample["embeddings"])
            if not math.isnan(numbers["effective_rank"] + numbers["z_effective_rank"]):
                numbers |= mutual_information(sample["features"], sample["embeddings"])
        return numbers


def _numbers(prefix: str, moments: Moments, sample: Tensor) -> dict[str, float]:
    numbers: dict[str, float | None] = dict.fromkeys(OF_ONE_SET)
    numbers |= {"samples": moments.count, "dimensions": len(moments.mean)}
    # Features that are not finite, as of a training that diverges, have no other metrics.
    if moments.variances.isfinite().all():
        numbers |= describe_space(moments, sample).numbers
    return {prefix + name: math.nan if value is None else float(value) for name, value in numbers.items()}
