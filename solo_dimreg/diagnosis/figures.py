"""The metrics of one set of features, and the verdict on a collapse."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from solo_dimreg.diagnosis.moments import Moments
from solo_dimreg.diagnosis.neighbourhoods import (
    LID_NEIGHBOURS,
    MANY_NEIGHBOURS,
    Neighbourhoods,
    neighbours_within,
    unit_scale,
)
from solo_dimreg.diagnosis.streaming import FeatureStatistics
from solo_dimreg.functional import matrix_entropy, matrix_mutual_information, uniformity
from solo_dimreg.functional._rows import few_indices, of_few
from solo_dimreg.functional.dimension import mst_dimension, two_nn
from solo_dimreg.functional.lid import lid_of_distances
from solo_dimreg.functional.spectrum import entropy, power_law_exponent, smoothed_rank
from solo_dimreg.functional.spread import normalized_sum, self_clustering

# Features whose standard deviation is below 1 % of their length count as one point.
COMPLETE_SPREAD = 1e-4
# A direction is empty if it has less than this part of the variance of the leading one.
EMPTY_DIRECTION = 1e-6
GLOBAL_RANK = 0.05
GLOBAL_FILLED = 0.25
LOCAL_LID = 2.5


@dataclass(frozen=True)
class Space:
    """The metrics of the features, or of the embeddings.

    Attributes:
        samples, dimensions: N and D.
        duplicates: number of samples that equal an earlier one exactly. Metrics of neighbours (the LIDs,
            ``two_nn``, ``mst_dimension``) count equal samples once.
        spread: variance (the trace of the covariance) divided by the mean squared length, 0 to 1.
        mean_share: squared length of the mean divided by the mean squared length, 1 minus the spread. The
            next three metrics are centred and cannot see it.
        effective_rank: effective rank of the centred features (Roy & Vetterli 2007).
        filled: number of directions with more than 1e-6 of the variance of the leading one.
        nesum: sum of the covariance's eigenvalues divided by the largest (He & Ozay 2022).
        rankme, rankme_share: RankMe (Garrido et al. 2023), and RankMe / D (Tsitsulin et al. 2023).
        alpha_req: exponent of the spectrum's power law (Agrawal et al. 2022); None if it is undefined.
        off_diagonal_correlation: mean absolute correlation of two axes (Hua et al. 2021).
        lid: geometric mean of the LID over some or all points, by moments, k = 32 (Huang et al. 2024).
        lid_mle: the same by maximum likelihood.
        lid_512: the same by moments with k = 512; None for fewer than 2,048 distinct samples.
        uniformity: uniformity of at most 2,048 samples, as for the next five (Wang & Isola 2020).
        self_clustering: self-clustering (Tsitsulin et al. 2023).
        matrix_entropy, matrix_entropy_1: entropy of order 2 and 1 (Sanchez Giraldo et al. 2015).
        two_nn: intrinsic dimension (Facco et al. 2017); None for fewer than three distinct samples.
        mst_dimension: intrinsic dimension of at most 1,024 samples by the minimum spanning tree (Costa & Hero
            2004); None for fewer than 32.
        spectrum: singular values of the covariance, (D,), descending.
        lids: LID of each point of ``lid``.
        correlation: the D x D correlation matrix, with zeros for constant axes. For more than 4,096 axes, the
            means of the absolute correlations in 128 x 128 blocks.
    """

    samples: int
    dimensions: int
    duplicates: int
    spread: float
    mean_share: float
    effective_rank: float
    filled: int
    nesum: float
    rankme: float
    rankme_share: float
    alpha_req: float | None
    off_diagonal_correlation: float
    lid: float
    lid_mle: float
    lid_512: float | None
    uniformity: float
    self_clustering: float
    matrix_entropy: float
    matrix_entropy_1: float
    two_nn: float | None
    mst_dimension: float | None
    spectrum: Tensor
    lids: Tensor
    correlation: Tensor

    @property
    def attainable(self) -> int:
        """Return the largest rank that this many centred samples of this many dimensions can have."""
        return max(1, min(self.samples - 1, self.dimensions))

    def scalars(self) -> dict[str, Any]:
        """Return all metrics but the spectrum, the LIDs of the points and the correlation matrix."""
        return {name: value for name, value in vars(self).items() if not isinstance(value, Tensor)}


def describe_space(moments: Moments, sample: Tensor, near: Neighbourhoods | None = None) -> Space:
    """Return the metrics of features.

    Args:
        moments: The moments of all the features.
        sample: A random sample of the features, (n, D).
        near: The neighbours of some of the features among all. With None, the sample is taken as all the
            features, and its neighbours are sought in it.
    """
    n, mean = moments.count, moments.mean
    variances = moments.variances
    # The mean squared length.
    total = float(variances.sum()) * max(n - 1, 1) / n + float(mean @ mean)
    # Eigenvalues below the floor are rounding errors: of the features in their own dtype, spread over D
    # directions, and of the decomposition.
    floor = (2 * moments.resolution) ** 2 * total / len(mean)
    spectrum = moments.eigenvalues()
    floor = max(floor, len(mean) * torch.finfo(torch.float64).eps * float(spectrum[0]))
    spectrum = torch.where(spectrum > floor, spectrum, 0)
    rankme = float(smoothed_rank(moments.squared_singular_values().sqrt()))
    correlation, off_diagonal = moments.correlation(floor)
    near = near or neighbours_within(sample)
    distances = near.distances
    if distances.shape[1] < 2:  # one neighbour says nothing, as in local_intrinsic_dimensionality
        distances = torch.zeros(len(distances), 2)
    lids = lid_of_distances(distances[:, :LID_NEIGHBOURS])
    many = distances.shape[1] == MANY_NEIGHBOURS
    return Space(
        samples=n,
        dimensions=len(mean),
        duplicates=near.duplicates,
        spread=float(spectrum.sum()) * max(n - 1, 1) / n / total if total else 0.0,
        mean_share=float(mean @ mean) / total if total else 1.0,
        effective_rank=float(entropy(spectrum.sqrt()).exp()),
        filled=int((spectrum > EMPTY_DIRECTION * spectrum[0]).sum()),
        nesum=float(normalized_sum(spectrum)),
        rankme=rankme,
        rankme_share=rankme / len(mean),
        alpha_req=_known(power_law_exponent(spectrum[spectrum > 0])),
        off_diagonal_correlation=off_diagonal,
        lid=_geometric_mean(lids),
        lid_mle=_geometric_mean(lid_of_distances(distances[:, :LID_NEIGHBOURS], "mle")),
        lid_512=_geometric_mean(lid_of_distances(distances)) if many else None,
        **_of_pairs(unit_scale(sample)),
        two_nn=_known(of_few(two_nn, near.rows)),
        mst_dimension=_known(of_few(mst_dimension, near.rows)),
        spectrum=spectrum,
        lids=lids,
        correlation=correlation,
    )


def _of_pairs(points: Tensor) -> dict[str, Any]:
    """Return the metrics that compare all pairs, of at most 2,048 points."""
    return {
        "uniformity": float(of_few(uniformity, points)),
        "self_clustering": float(of_few(self_clustering, points)),
        "matrix_entropy": max(0.0, float(of_few(matrix_entropy, points))),
        "matrix_entropy_1": max(0.0, float(of_few(partial(matrix_entropy, order=1), points))),
    }


def mutual_information(features: Tensor, embeddings: Tensor) -> dict[str, float]:
    """Return I(R;Z) of order 2 and 1, of at most 2,048 samples."""
    few = few_indices(len(features))
    r, z = unit_scale(features)[few], unit_scale(embeddings)[few]
    return {
        "mutual_information": float(matrix_mutual_information(r, z)),
        "mutual_information_1": float(matrix_mutual_information(r, z, order=1)),
    }


def representation_figures(features: Tensor, embeddings: Tensor | None = None) -> dict[str, Any]:
    """Return the global and local dimensionality of features (N, D) and embeddings (N, d).

    Returns:
        Of the features: ``effective_rank`` (centred), ``lid`` (geometric mean, k = 32, over all points, or
        over 1,000 of more than 10,000), ``rankme`` and ``alpha_req`` as in :class:`Space`, and ``spectrum``,
        the D singular values of the covariance, descending. Of the embeddings, or None without them:
        ``z_correlation``, the mean absolute off-diagonal correlation, and ``z_spread``, the standard
        deviation divided by the root of the mean squared length, which is 0 if they are one point.
    """
    statistics = FeatureStatistics()
    statistics.update(features, embeddings)
    near = neighbours_within(features, most=statistics.sample_size)
    space = describe_space(statistics.features, statistics.sample.features, near)
    moments = statistics.embeddings
    correlation = spread = None
    if moments is not None:
        correlation = moments.correlation()[1]
        variance = float(moments.variances.sum())
        squares = variance + float(moments.mean @ moments.mean)
        spread = math.sqrt(variance / squares) if squares else 0.0
    return {
        "z_correlation": correlation,
        "z_spread": spread,
        "effective_rank": space.effective_rank,
        "lid": space.lid,
        "rankme": space.rankme,
        "alpha_req": space.alpha_req,
        "spectrum": space.spectrum.tolist(),
    }


@dataclass(frozen=True)
class Verdict:
    """A verdict on a collapse: ``kind`` in a word or two, and ``reason`` with the numbers behind it."""

    kind: str
    reason: str

    def as_dict(self) -> dict[str, str]:
        """Return the verdict for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the verdict in one line."""
        return f"{self.kind}: {self.reason}"


THRESHOLDS = {
    "complete collapse": f"variance below {COMPLETE_SPREAD:g} of the mean squared length",
    "global collapse": f"effective rank below {GLOBAL_RANK:.0%} of the attainable one, or fewer than "
    f"{GLOBAL_FILLED:.0%} of the directions with over {EMPTY_DIRECTION:g} of the leading one's variance",
    "local collapse": f"LID below {LOCAL_LID:g} and below half the effective rank",
}


def judge(space: Space) -> Verdict:
    """Return the verdict by ``THRESHOLDS``: complete, global or local collapse, in this order, or healthy."""
    if space.spread < COMPLETE_SPREAD:
        return Verdict(
            "complete collapse",
            f"all features are nearly one point: their variance is {space.spread:.1e} of their mean squared "
            f"length (threshold {COMPLETE_SPREAD:g}).",
        )
    filled = (
        f"effective rank {space.effective_rank:.1f} of {space.attainable} (threshold {GLOBAL_RANK:.0%}), "
        f"{space.filled} of {space.attainable} directions filled (threshold {GLOBAL_FILLED:.0%})"
    )
    threshold = min(LOCAL_LID, space.effective_rank / 2)
    lid = f"LID {space.lid:.2f} (threshold {threshold:.3g})"
    few_filled = space.filled < GLOBAL_FILLED * space.attainable
    if space.effective_rank < GLOBAL_RANK * space.attainable or few_filled:
        return Verdict("global collapse", f"the features fill few of their dimensions: {filled}; {lid}.")
    if space.lid < threshold:
        reason = (
            f"the features fill few dimensions around each point: {lid}, although they fill many globally: "
            f"{filled}. Images with few dimensions of their own cause this without a collapse."
        )
        return Verdict("local collapse", reason)
    return Verdict(
        "healthy",
        f"the features fill their dimensions globally: {filled}, and locally: {lid}. More than that is not "
        "better by itself.",
    )


def _known(value: Tensor) -> float | None:
    return float(value) if math.isfinite(value) else None


def _geometric_mean(lids: Tensor) -> float:
    return float(lids.double().log().mean().exp())
