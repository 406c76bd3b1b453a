"""Metrics of dimensionality as ``torchmetrics.Metric`` classes.

Install them with ``pip install 'solo-dimreg[torchmetrics]'``. They work like torchmetrics' own classes: in a
``MetricCollection``, in Lightning's ``self.log``, and synchronized over processes when they are computed. No
direction of theirs is better by itself.

Every class takes the arguments of every ``torchmetrics.Metric``, and ``max_samples`` (10,000): of more rows
it keeps a uniform random choice of that size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, ClassVar

import torch
from torch import Tensor

from solo_dimreg import functional
from solo_dimreg.distributed import rank
from solo_dimreg.errors import MissingPackageError
from solo_dimreg.functional._checks import check_bool, check_features, check_int
from solo_dimreg.functional._rows import KEPT_ROWS, of_few, of_few_distinct
from solo_dimreg.functional.information import check_order
from solo_dimreg.functional.lid import check_lid_options

try:
    from torchmetrics import Metric
    from torchmetrics.utilities.data import dim_zero_cat
except ModuleNotFoundError as error:
    if error.name != "torchmetrics":
        raise  # torchmetrics is installed, and something that it needs is not
    raise MissingPackageError(
        "solo_dimreg.metrics needs torchmetrics: pip install 'solo-dimreg[torchmetrics]'."
    ) from error

__all__ = [
    "Alignment",
    "AlphaReQ",
    "EffectiveRank",
    "GeometricMeanLID",
    "LiDAR",
    "MSTDimension",
    "MatrixEntropy",
    "MatrixMutualInformation",
    "MeanShare",
    "NESum",
    "OffDiagonalCorrelation",
    "RankMe",
    "RankMeShare",
    "SelfClustering",
    "TwoNN",
    "Uniformity",
]


class _OfRows(Metric):
    """A metric that keeps at most ``max_samples`` of its rows, a uniform random choice.

    Each row draws a number, and the rows with the smallest numbers stay. This holds for merged and
    synchronized metrics too. All metrics draw the same numbers, so a collection keeps the rows once.

    Args:
        max_samples: The largest number of rows that are kept.
        kwargs: The arguments of every ``torchmetrics.Metric``.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    #: The names of the arguments, in their order.
    parts: ClassVar[tuple[str, ...]] = ("features",)
    #: The function that computes the metric from the rows that were kept.
    figure: Callable[..., Tensor]
    draws: list[Tensor]

    def __init__(self, max_samples: int = KEPT_ROWS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_int("max_samples", max_samples, minimum=3)
        self.max_samples = max_samples
        # It is a state, so that a collection does not join metrics that keep different numbers of rows.
        self.add_state("limit", torch.tensor(max_samples), dist_reduce_fx="max")
        for name in (*self.parts, "draws"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self._updates = 0

    def compute(self) -> Tensor:
        """Compute the metric from all rows that were kept, over all processes, a scalar."""
        *rows, _ = self._chosen()
        return self.figure(*rows)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Add a batch, and return the metric of this batch alone."""
        value = super().forward(*args, **kwargs)
        self._trim()
        return value

    def _wrap_compute(self, compute: Callable) -> Callable:
        """Return a ``compute`` without the cached result, which a collection keeps too long or shares."""
        # Before torchmetrics 1.5, the metrics of a compute group share it: its issues 2206 and 2570.
        cached = super()._wrap_compute(compute)

        @wraps(compute)
        def fresh(*args: Any, **kwargs: Any) -> Any:
            self._computed = None
            return cached(*args, **kwargs)

        return fresh

    def _add(self, *rows: Tensor) -> None:
        for name, each in zip(self.parts, rows, strict=True):
            check_features(name, each)
            if len(each) != len(rows[0]):
                raise ValueError(f"{name}: {len(each)} rows for {len(rows[0])} of {self.parts[0]}.")
        # The numbers differ between batches and processes, and are the same in each metric.
        generator = torch.Generator().manual_seed(65_537 * self._updates + rank())
        self._updates += 1
        draws = torch.randint(2**63 - 1, (len(rows[0]),), generator=generator)
        home = self.draws[0].device if len(self.draws) else rows[0].device  # the CPU with compute_on_cpu
        for name, each in zip((*self.parts, "draws"), (*rows, draws), strict=True):
            getattr(self, name).append(each.detach().to(home, copy=True))  # the caller may change it
        self._trim()

    def _chosen(self) -> list[Tensor]:
        """Return the rows that stay, and the numbers that they drew."""
        if not len(self.draws):
            raise ValueError(f"{type(self).__name__}: compute() needs rows, and update() has had none.")
        whole = [dim_zero_cat(getattr(self, name)) for name in (*self.parts, "draws")]
        if len(whole[-1]) <= self.max_samples:
            return whole
        kept = whole[-1].topk(self.max_samples, largest=False).indices.sort().values
        return [each[kept] for each in whole]

    def _trim(self) -> None:
        """Drop the other rows once there are more of them than rows that stay."""
        if sum(len(drawn) for drawn in self.draws) > 2 * self.max_samples:
            for name, each in zip((*self.parts, "draws"), self._chosen(), strict=True):
                setattr(self, name, [each])


class _OfFeatures(_OfRows):
    def update(self, features: Tensor) -> None:
        """Add a batch of features or embeddings, shape (B, D)."""
        self._add(features)


class EffectiveRank(_OfFeatures):
    """The effective rank of centred features, see :func:`solo_dimreg.functional.effective_rank`.

    Args:
        center: Subtract the mean first, as the monitor does.
        kwargs: The arguments of all classes here.

    Example:
        >>> metric = EffectiveRank()
        >>> for features in torch.randn(4, 100, 16):
        ...     metric.update(features)
        >>> round(metric.compute().item())
        16
    """

    def __init__(self, center: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_bool("center", center)
        self.figure = partial(functional.effective_rank, center=center)


class GeometricMeanLID(_OfFeatures):
    """The geometric mean of the LID, see :func:`solo_dimreg.functional.geometric_mean_lid`.

    Args:
        k: Number of neighbours; LDReg's authors track 32 and 512.
        estimator: "mom" or "mle"; LDReg's authors track "mle".
        kwargs: The arguments of all classes here.
    """

    def __init__(self, k: int = 32, estimator: str = "mom", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_lid_options(k, estimator)
        self.figure = partial(functional.geometric_mean_lid, k=k, estimator=estimator)


class RankMe(_OfFeatures):
    """RankMe, see :func:`solo_dimreg.functional.rankme`."""

    figure = staticmethod(functional.rankme)


class AlphaReQ(_OfFeatures):
    """alpha-ReQ, see :func:`solo_dimreg.functional.alpha_req`."""

    figure = staticmethod(functional.alpha_req)


class MatrixEntropy(_OfFeatures):
    """The matrix-based entropy in nats, see :func:`solo_dimreg.functional.matrix_entropy`.

    Args:
        order: The order of the entropy, 1 or 2; 1 needs eigenvalues.
        kwargs: The arguments of all classes here.
    """

    def __init__(self, order: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_order(order)
        self.figure = partial(of_few, partial(functional.matrix_entropy, order=order))


class Uniformity(_OfFeatures):
    """The uniformity, see :func:`solo_dimreg.functional.uniformity`."""

    figure = staticmethod(partial(of_few, functional.uniformity))


class OffDiagonalCorrelation(_OfFeatures):
    """The mean correlation of two axes, see :func:`solo_dimreg.functional.off_diagonal_correlation`."""

    figure = staticmethod(functional.off_diagonal_correlation)


class NESum(_OfFeatures):
    """NESum, see :func:`solo_dimreg.functional.nesum`."""

    figure = staticmethod(functional.nesum)


class RankMeShare(_OfFeatures):
    """RankMe divided by the width, see :func:`solo_dimreg.functional.rankme_share`."""

    figure = staticmethod(functional.rankme_share)


class MeanShare(_OfFeatures):
    """The share of the mean in the squared length, see :func:`solo_dimreg.functional.mean_share`."""

    figure = staticmethod(functional.mean_share)


class SelfClustering(_OfFeatures):
    """Self-clustering, see :func:`solo_dimreg.functional.self_clustering`."""

    figure = staticmethod(partial(of_few, functional.self_clustering))


class TwoNN(_OfFeatures):
    """TwoNN, see :func:`solo_dimreg.functional.two_nn`."""

    figure = staticmethod(partial(of_few_distinct, functional.two_nn))


class MSTDimension(_OfFeatures):
    """The dimension by spanning trees, see :func:`solo_dimreg.functional.mst_dimension`."""

    figure = staticmethod(partial(of_few_distinct, functional.mst_dimension))


class MatrixMutualInformation(_OfRows):
    """The mutual information I(R;Z) in nats, see :func:`solo_dimreg.functional.matrix_mutual_information`.

    Args:
        order: The order of the entropies, 1 or 2; 1 needs eigenvalues.
        kwargs: The arguments of all classes here.
    """

    parts = ("features", "embeddings")

    def __init__(self, order: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_order(order)
        self.figure = partial(of_few, partial(functional.matrix_mutual_information, order=order))

    def update(self, features: Tensor, embeddings: Tensor) -> None:
        """Add features (B, D) and embeddings (B, d) of the same samples."""
        self._add(features, embeddings)


def _lidar(first: Tensor, second: Tensor) -> Tensor:
    return functional.lidar(torch.stack([first, second], dim=1).flatten(0, 1), samples_per_class=2)


class _OfViews(_OfRows):
    parts = ("first", "second")

    def update(self, first: Tensor, second: Tensor) -> None:
        """Add features or embeddings of two views of the same samples, each of shape (B, D)."""
        self._add(first, second)


class Alignment(_OfViews):
    """The alignment of two views, see :func:`solo_dimreg.functional.alignment`."""

    figure = staticmethod(functional.alignment)


class LiDAR(_OfViews):
    """LiDAR of two views, see :func:`solo_dimreg.functional.lidar`."""

    figure = staticmethod(_lidar)
