"""One record for each metric: everything that the front ends know of it.

The monitor, the diagnosis, the tracker, the torchmetrics classes, tables and pages are made from
``METRICS``. A new metric is a function and a record here, and a row in the glossary ``docs/metrics.md``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from solo_dimreg import functional
from solo_dimreg.functional._rows import distinct_rows, of_few, of_few_distinct
from solo_dimreg.functional.signal import noise_share_of, noise_threshold
from solo_dimreg.functional.spectrum import entropy, power_law_exponent, smoothed_rank
from solo_dimreg.functional.spread import normalized_sum
from solo_dimreg.metrics import intervals
from solo_dimreg.metrics.moments import Moments
from solo_dimreg.metrics.neighbourhoods import LID_NEIGHBOURS, MANY_NEIGHBOURS, Neighbourhoods

# What a function takes: rows (B, D) of features or embeddings; two views of the same samples, of features or
# embeddings; the features and the embeddings of the same samples; or the tokens (B, N, D) of images.
ROWS, VIEWS, FEATURES_AND_EMBEDDINGS, TOKENS = "rows", "views", "features and embeddings", "tokens"
ARXIV = "https://arxiv.org/abs/"
# The lowest and the highest value of a metric; that of a rank is the attainable one.
SHARE, POSITIVE, RANK = (0.0, 1.0), (0.0, math.inf), (1.0, math.inf)
# A direction is empty if it has less than this part of the variance of the leading one.
EMPTY_DIRECTION = 1e-6


class Reference(NamedTuple):
    """The paper of a metric, and its address; both may be empty."""

    paper: str = ""
    address: str = ""


OURS = Reference()


@dataclass(frozen=True)
class MetricRecord:
    """A metric.

    Attributes:
        name: Its name in settings and files.
        function: Computes it from the rows that ``inputs`` names; None if only a diagnosis has it.
        label: Its name in tables and plots. If it is empty, ``METRICS`` has the name with spaces.
        unit: What it is counted in; empty for a plain number.
        decimals: The digits after the point in tables.
        inputs: What the function takes: ``ROWS``, ``VIEWS``, ``FEATURES_AND_EMBEDDINGS`` or ``TOKENS``.
        falls: Whether it falls at a collapse from a value above 0, so that it can be the metric of the alarm.
        explanation, source: Its meaning in a sentence or two, and the paper.
        of_moments: Computes it from the moments of all rows, whose memory does not grow with the rows.
        of_neighbours: Computes it from distances to the nearest neighbours, or from distinct rows.
        deviations: Computes how far it moves with the images, for its interval, from the neighbourhoods or
            the rows. Metrics of the moments need none.
        torchmetrics: The name of its class in ``solo_dimreg.metrics``; empty without one.
        bounds: The lowest and the highest value that it can have.
        in_monitor: Whether a ``monitor:`` block can name it; False in ``METRICS`` without a function.
        in_diagnosis: Whether ``diagnose`` and the tracker compute it.
    """

    name: str
    function: Callable[..., Tensor] | None = None
    label: str = ""
    unit: str = ""
    decimals: int = 2
    inputs: str = ROWS
    falls: bool = True
    explanation: str = ""
    source: Reference = OURS
    of_moments: Callable[[Moments], Any] | None = None
    of_neighbours: Callable[[Neighbourhoods], Any] | None = None
    deviations: Callable[[Any], Tensor] | None = None
    torchmetrics: str = ""
    bounds: tuple[float, float] = intervals.UNBOUNDED
    in_monitor: bool = True
    in_diagnosis: bool = True


def lid_mle_512(features: Tensor) -> Tensor:
    """Return the LID by maximum likelihood with 512 neighbours, or NaN if there are fewer."""
    distinct = features[distinct_rows(features)[0]]
    if len(distinct) <= MANY_NEIGHBOURS:
        return features.new_full((), math.nan)
    return functional.geometric_mean_lid(distinct, k=MANY_NEIGHBOURS, estimator="mle")


def lidar_of_two_views(first: Tensor, second: Tensor) -> Tensor:
    """Return LiDAR of two views of the same samples, each of shape (B, D)."""
    return functional.lidar(torch.stack([first, second], dim=1).flatten(0, 1), samples_per_class=2)


def _directions_filled(moments: Moments) -> int:
    return int((moments.spectrum > EMPTY_DIRECTION * moments.spectrum[0]).sum())


def _signal_rank(moments: Moments) -> int:
    return int((moments.spectrum > noise_threshold(moments.spectrum, moments.count)).sum())


GAVISH = Reference("Gavish & Donoho, IEEE TIT 2014", ARXIV + "1305.5870")
LDREG = Reference("Huang et al., LDReg, ICLR 2024", ARXIV + "2401.10474")
RENYI = Reference("Sanchez Giraldo et al., 2015", ARXIV + "1211.2459")
WANG = Reference("Wang & Isola, ICML 2020", ARXIV + "2005.10242")
COSTA = Reference(
    "Costa & Hero, IEEE TSP 2004; used by Mordacq et al., IdEst, ICML 2026", ARXIV + "2606.03338"
)
TSITSULIN = Reference("Tsitsulin et al., TAG-ML at ICML 2023", ARXIV + "2305.16562")

# In the order of the tables.
_RECORDS = (
    MetricRecord("samples", decimals=0, of_moments=lambda moments: moments.count),
    MetricRecord("dimensions", decimals=0, of_moments=lambda moments: len(moments.mean)),
    MetricRecord("duplicates", decimals=0, of_neighbours=lambda near: near.duplicates),
    MetricRecord("spread", decimals=3, of_moments=lambda moments: moments.spread, bounds=SHARE),
    MetricRecord(
        "mean_share",
        functional.mean_share,
        label="mean's share",
        decimals=3,
        falls=False,
        explanation="The part of the mean squared length that the mean of the features holds. Near 1, all "
        "features share one vector, which centred metrics (effective rank, LID, correlation, spectra) cannot "
        "see. Features after a ReLU have a large share by themselves.",
        of_moments=lambda moments: moments.mean_share,
        torchmetrics="MeanShare",
        bounds=SHARE,
    ),
    MetricRecord(
        "effective_rank",
        partial(functional.effective_rank, center=True),
        decimals=1,
        explanation="The number of dimensions filled globally: the exponential of the entropy of the "
        "normalized singular values. A fall to a fifth of the peak is a warning, and a fall to a half is "
        "usual; more is not better by itself.",
        source=Reference("Roy & Vetterli, EUSIPCO 2007"),
        of_moments=lambda moments: entropy(moments.spectrum.sqrt()).exp(),
        torchmetrics="EffectiveRank",
        bounds=RANK,
    ),
    MetricRecord(
        "variance_rank",
        functional.variance_rank,
        label="entropy rank of the variances",
        decimals=1,
        explanation="The exponential of the entropy of the normalized variances along the directions. The "
        "effective rank takes their roots, in which noise weighs more; more is not better by itself.",
        of_moments=lambda moments: entropy(moments.spectrum).exp(),
        torchmetrics="VarianceRank",
        bounds=RANK,
    ),
    MetricRecord(
        "signal_rank",
        functional.signal_rank,
        label="directions above noise",
        decimals=0,
        explanation="The number of directions that stand out of noise of unknown level, by the optimal hard "
        "threshold for singular values. Features that fill all directions equally have none.",
        falls=False,
        source=GAVISH,
        of_moments=_signal_rank,
        torchmetrics="SignalRank",
    ),
    MetricRecord(
        "noise_share",
        functional.noise_share,
        label="variance beyond them",
        decimals=3,
        falls=False,
        explanation="The part of the variance outside the directions above noise. Few directions with little "
        "variance beyond them are a collapse.",
        source=GAVISH,
        of_moments=lambda moments: noise_share_of(moments.spectrum, moments.count),
        torchmetrics="NoiseShare",
        bounds=SHARE,
    ),
    MetricRecord(
        "group_share",
        partial(of_few, functional.group_share),
        label="variance between groups",
        decimals=3,
        falls=False,
        deviations=intervals.group_share_deviations,
        in_monitor=False,
        bounds=SHARE,
    ),
    MetricRecord("filled", label="directions filled", decimals=0, of_moments=_directions_filled),
    MetricRecord(
        "lid",
        partial(functional.geometric_mean_lid, k=LID_NEIGHBOURS),
        label="LID",
        explanation="Local intrinsic dimensionality: the number of dimensions filled around each point, from "
        "the distances to its nearest neighbours, as a geometric mean over the points. A low LID is a "
        "collapse only if the images have more dimensions. LDReg raises it; IdEst prefers networks with a "
        "low one.",
        source=LDREG,
        of_neighbours=lambda near: near.mean_lid(),
        deviations=lambda near: near.lid_deviations(),
        torchmetrics="GeometricMeanLID",
        bounds=POSITIVE,
    ),
    MetricRecord(
        "lid_in_groups",
        label="LID within groups",
        of_neighbours=lambda near: near.lid_in_groups(),
        deviations=lambda near: intervals.of_groups(
            lambda kept: replace(near, distances=near.distances[kept]).lid_in_groups(), len(near.distances)
        ),
        bounds=POSITIVE,
    ),
    MetricRecord(
        "lid_mle",
        partial(functional.geometric_mean_lid, k=LID_NEIGHBOURS, estimator="mle"),
        label="LID, maximum likelihood",
        explanation="The LID by maximum likelihood with 32 neighbours, as LDReg tracks it.",
        source=LDREG,
        of_neighbours=lambda near: near.mean_lid(estimator="mle"),
        deviations=lambda near: near.lid_deviations(estimator="mle"),
        bounds=POSITIVE,
    ),
    MetricRecord(
        "lid_512",
        label="LID (k = 512)",
        of_neighbours=lambda near: near.mean_lid(MANY_NEIGHBOURS),
        deviations=lambda near: near.lid_deviations(MANY_NEIGHBOURS),
        bounds=POSITIVE,
    ),
    MetricRecord(
        "lid_mle_512",
        lid_mle_512,
        label="LID, maximum likelihood (k = 512)",
        explanation="The LID by maximum likelihood with 512 neighbours, in wider neighbourhoods, as LDReg "
        "tracks it.",
        source=LDREG,
        in_diagnosis=False,
    ),
    MetricRecord(
        "two_nn",
        partial(of_few_distinct, functional.two_nn),
        label="dimension (TwoNN)",
        explanation="The intrinsic dimension from the distances to the two nearest neighbours. Neither a "
        "high nor a low one is good by itself.",
        source=Reference("Facco et al., Scientific Reports 2017"),
        of_neighbours=lambda near: of_few(functional.two_nn, near.rows),
        deviations=lambda near: intervals.two_nn_deviations(near.rows),
        torchmetrics="TwoNN",
        bounds=POSITIVE,
    ),
    MetricRecord(
        "mst_dimension",
        partial(of_few_distinct, functional.mst_dimension),
        label="dimension (spanning tree)",
        explanation="The intrinsic dimension from the growth of the minimum spanning tree with the number of "
        "points. Neither a high nor a low one is good by itself: IdEst finds lower ones in better networks, "
        "while LDReg raises the local dimension against collapse.",
        source=COSTA,
        of_neighbours=lambda near: of_few(functional.mst_dimension, near.rows),
        deviations=lambda near: intervals.mst_deviations(near.rows),
        torchmetrics="MSTDimension",
        bounds=POSITIVE,
    ),
    MetricRecord(
        "nesum",
        functional.nesum,
        label="NESum",
        decimals=1,
        explanation="The variance, divided by the variance of the leading direction: 1 if that direction has "
        "all of it, and the number of dimensions if all are equal. Its authors find that too even is no "
        "better than too uneven.",
        source=Reference("He & Ozay, ICML 2022"),
        of_moments=lambda moments: normalized_sum(moments.spectrum),
        torchmetrics="NESum",
        bounds=RANK,
    ),
    MetricRecord(
        "rankme",
        functional.rankme,
        label="RankMe",
        decimals=1,
        explanation="The smoothed effective rank of the features without centring.",
        source=Reference("Garrido et al., ICML 2023", ARXIV + "2210.02885"),
        of_moments=lambda moments: smoothed_rank(moments.singular_values),
        torchmetrics="RankMe",
        bounds=RANK,
    ),
    MetricRecord(
        "rankme_share",
        functional.rankme_share,
        label="RankMe over the width",
        decimals=3,
        explanation="RankMe divided by the number of dimensions, to compare networks of different widths.",
        source=TSITSULIN,
        of_moments=lambda moments: smoothed_rank(moments.singular_values) / len(moments.mean),
        torchmetrics="RankMeShare",
        bounds=SHARE,
    ),
    MetricRecord(
        "alpha_req",
        functional.alpha_req,
        label="alpha-ReQ",
        falls=False,
        explanation="The exponent of the power law by which the spectrum decays, at ranks 4 to 100. Values "
        "near 1 tend to go with good representations, and larger values with few dimensions.",
        source=Reference("Agrawal et al., NeurIPS 2022"),
        of_moments=lambda moments: power_law_exponent(moments.spectrum[moments.spectrum > 0]),
        torchmetrics="AlphaReQ",
    ),
    MetricRecord(
        "off_diagonal_correlation",
        functional.off_diagonal_correlation,
        label="off-diagonal correlation",
        decimals=3,
        falls=False,
        explanation="The mean absolute correlation of two different axes: 0 if the axes are decorrelated, "
        "and near 1 if all of them are alike.",
        source=Reference("Hua et al., ICCV 2021", ARXIV + "2105.00470"),
        of_moments=lambda moments: moments.correlations[1],
        torchmetrics="OffDiagonalCorrelation",
        bounds=SHARE,
    ),
    MetricRecord(
        "matrix_entropy",
        partial(of_few, functional.matrix_entropy),
        unit="nats",
        explanation="The matrix-based Rényi entropy of order 2, in nats, measures how evenly the samples "
        "spread; it is 0 if all are parallel. It hardly moves for features that are not negative, since they "
        "share the direction of their mean. The H(R) and H(Z) of AdaDim are effective ranks.",
        source=RENYI,
        deviations=intervals.matrix_entropy_deviations,
        torchmetrics="MatrixEntropy",
        bounds=POSITIVE,
    ),
    MetricRecord(
        "matrix_entropy_1",
        partial(of_few, partial(functional.matrix_entropy, order=1)),
        label="matrix entropy of order 1",
        unit="nats",
        deviations=partial(intervals.matrix_entropy_deviations, order=1),
        in_monitor=False,
        bounds=POSITIVE,
    ),
    MetricRecord(
        "mutual_information",
        partial(of_few, functional.matrix_mutual_information),
        label="I(R;Z)",
        unit="nats",
        inputs=FEATURES_AND_EMBEDDINGS,
        explanation="The matrix-based mutual information of features and embeddings, in nats, measures how "
        "much the projector keeps.",
        source=RENYI,
        torchmetrics="MatrixMutualInformation",
        bounds=POSITIVE,
    ),
    MetricRecord(
        "uniformity",
        partial(of_few, functional.uniformity),
        falls=False,
        explanation="Uniformity measures how unevenly the normalized samples cover the sphere: lower is more "
        "uniform, and 0 is a single point.",
        source=WANG,
        deviations=intervals.uniformity_deviations,
        torchmetrics="Uniformity",
        bounds=(-math.inf, 0.0),
    ),
    MetricRecord(
        "self_clustering",
        partial(of_few, functional.self_clustering),
        label="self-clustering",
        decimals=3,
        falls=False,
        explanation="Self-clustering measures how much more parallel the features are than on a uniform "
        "sphere: about 0 there, and 1 if all are parallel, as around a shared vector.",
        source=TSITSULIN,
        deviations=intervals.self_clustering_deviations,
        torchmetrics="SelfClustering",
        bounds=(-math.inf, 1.0),
    ),
    MetricRecord(
        "alignment",
        functional.alignment,
        inputs=VIEWS,
        falls=False,
        explanation="The mean squared distance between the normalized views of a sample: lower is more "
        "invariant. It is also 0 in a complete collapse.",
        source=WANG,
        torchmetrics="Alignment",
    ),
    MetricRecord(
        "lidar",
        lidar_of_two_views,
        label="LiDAR",
        inputs=VIEWS,
        explanation="The effective rank of the differences between samples, relative to the differences "
        "between their views. The monitor uses two views of each sample; the paper uses more.",
        source=Reference("Thilak et al., ICLR 2024"),
        torchmetrics="LiDAR",
    ),
    MetricRecord(
        "dse",
        functional.dse,
        label="DSE",
        inputs=TOKENS,
        falls=False,
        explanation="The dense representation structure estimator: the distance between the clusters of the "
        "patches, minus the radius of the clusters, plus the part of the dimensions that the patches fill. "
        "Higher goes with better dense predictions.",
        source=Reference("Dai et al., NeurIPS 2025", ARXIV + "2510.17299"),
        in_monitor=False,
        in_diagnosis=False,
    ),
)
METRICS = {
    record.name: replace(
        record,
        label=record.label or record.name.replace("_", " "),
        in_monitor=record.in_monitor and record.function is not None,
    )
    for record in _RECORDS
}
