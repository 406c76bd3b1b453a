"""The metrics as ``torchmetrics.Metric`` classes, made from the registry.

A metric that moments tell covers all rows, and its state is one sum, whose memory does not grow with the
rows. Every other class keeps a uniform random choice of at most ``max_samples`` (10,000) rows. Every class
takes ``max_samples`` and the arguments of every ``torchmetrics.Metric``.
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
from solo_dimreg.functional._precision import with_float64
from solo_dimreg.functional._rows import KEPT_ROWS, of_few
from solo_dimreg.functional.information import check_order
from solo_dimreg.functional.lid import check_lid_options
from solo_dimreg.functional.spectrum import entropy
from solo_dimreg.metrics.moments import Moments
from solo_dimreg.metrics.registry import METRICS, ROWS, VIEWS, MetricRecord
from solo_dimreg.metrics.streaming import keep_smallest

try:
    from torchmetrics import Metric
    from torchmetrics.utilities.data import dim_zero_cat
except ModuleNotFoundError as error:
    if error.name != "torchmetrics":
        raise  # torchmetrics is installed, and something that it needs is not
    raise MissingPackageError(
        "solo_dimreg.metrics needs torchmetrics: pip install 'solo-dimreg[torchmetrics]'."
    ) from error


class _Uncached(Metric):
    """A metric whose ``compute`` does not cache its result, which a collection keeps too long or shares."""

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    #: The names of the arguments, in their order.
    parts: ClassVar[tuple[str, ...]] = ("features",)

    def __init__(self, max_samples: int = KEPT_ROWS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_int("max_samples", max_samples, minimum=3)
        self.max_samples = max_samples

    def _wrap_compute(self, compute: Callable) -> Callable:
        # Before torchmetrics 1.5, the metrics of a compute group share it: its issues 2206 and 2570.
        cached = super()._wrap_compute(compute)

        @wraps(compute)
        def fresh(*args: Any, **kwargs: Any) -> Any:
            self._computed = None
            return cached(*args, **kwargs)

        return fresh

    def _refuse_no_rows(self, rows: int) -> None:
        if not rows:
            raise ValueError(f"{type(self).__name__}: compute() needs rows, and update() has had none.")


class _OfMoments(_Uncached):
    """A metric of the moments of all rows, whose state is a matrix of (1 + D)² sums in float64.

    ``max_samples`` limits nothing. Directions whose standard deviation is below about 6e-8 of the length of
    the features are lost in the sums.
    """

    #: The function that computes the metric from the moments.
    of_moments: Callable[[Moments], Any]
    sums: Tensor
    resolution: Tensor

    def __init__(self, max_samples: int = KEPT_ROWS, **kwargs: Any) -> None:
        super().__init__(max_samples, **kwargs)
        # It becomes a matrix with the first batch, see Moments.from_sums.
        self.add_state("sums", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("resolution", torch.tensor(0.0), dist_reduce_fx="max")

    def forward(self, features: Tensor) -> Tensor:
        """Add a batch, and return the metric of this batch alone."""
        self.update(features)
        rows = with_float64(features).detach()
        alone = Moments(len(rows), rows.double().mean(dim=0), torch.finfo(features.dtype).eps, rows=rows)
        value = self._value(alone) if rows.isfinite().all() else self._undefined()
        self._forward_cache: Any = value
        return value

    def update(self, features: Tensor) -> None:
        """Add a batch of features or embeddings, shape (B, D)."""
        check_features("features", features)
        if self.sums.dim() and len(self.sums) != features.shape[1] + 1:
            raise ValueError(
                f"features: have width {features.shape[1]}, and had {len(self.sums) - 1} before."
            )
        rows = with_float64(features).detach().double().to(self.sums.device)
        rows = torch.cat([rows.new_ones(len(rows), 1), rows], dim=1)
        self.sums = self.sums + rows.T @ rows
        self.resolution = self.resolution.clamp_min(torch.finfo(features.dtype).eps)

    def compute(self) -> Tensor:
        """Compute the metric of all rows of all processes, a scalar."""
        self._refuse_no_rows(self.sums.dim())
        if not self.sums.isfinite().all():
            return self._undefined()
        return self._value(Moments.from_sums(self.sums, float(self.resolution)))

    def _value(self, moments: Moments) -> Tensor:
        return torch.as_tensor(self.of_moments(moments), dtype=torch.float32, device=self.sums.device)

    def _undefined(self) -> Tensor:
        return torch.full((), torch.nan, device=self.sums.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Any:
        """Move the states, but keep sums in float64 where they are if the device has no float64."""

        def move(state: Tensor) -> Tensor:
            try:
                return fn(state)
            except TypeError:
                if state.dtype != torch.float64:
                    raise
                return state

        return super()._apply(move, *args, **kwargs)


class _OfRows(_Uncached):
    """A metric that keeps at most ``max_samples`` of its rows, a uniform random choice.

    Each row draws a number, and the rows with the smallest numbers stay. This holds for merged and
    synchronized metrics too. All metrics draw the same numbers, so a collection keeps the rows once.
    """

    #: The function that computes the metric from the rows that were kept.
    function: Callable[..., Tensor]
    draws: list[Tensor]

    def __init__(self, max_samples: int = KEPT_ROWS, **kwargs: Any) -> None:
        super().__init__(max_samples, **kwargs)
        # It is a state, so that a collection does not join metrics that keep different numbers of rows.
        self.add_state("limit", torch.tensor(max_samples), dist_reduce_fx="max")
        for name in (*self.parts, "draws"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self._updates = 0

    def compute(self) -> Tensor:
        """Compute the metric from all rows that were kept, over all processes, a scalar."""
        *rows, _ = self._chosen()
        return self.function(*rows)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Add a batch, and return the metric of this batch alone."""
        value = super().forward(*args, **kwargs)
        self._trim()
        return value

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
        self._refuse_no_rows(len(self.draws))
        *rows, draws = [dim_zero_cat(getattr(self, name)) for name in (*self.parts, "draws")]
        draws, rows = keep_smallest(self.max_samples, draws, rows)
        return [*rows, draws]

    def _trim(self) -> None:
        """Drop the other rows once there are more of them than rows that stay."""
        if sum(len(drawn) for drawn in self.draws) > 2 * self.max_samples:
            for name, each in zip((*self.parts, "draws"), self._chosen(), strict=True):
                setattr(self, name, [each])


class _OfFeatures(_OfRows):
    def update(self, features: Tensor) -> None:
        """Add a batch of features or embeddings, shape (B, D)."""
        self._add(features)


class _OfViews(_OfRows):
    parts = ("first", "second")

    def update(self, first: Tensor, second: Tensor) -> None:
        """Add features or embeddings of two views of the same samples, each of shape (B, D)."""
        self._add(first, second)


class _OfFeaturesAndEmbeddings(_OfRows):
    parts = ("features", "embeddings")

    def update(self, features: Tensor, embeddings: Tensor) -> None:
        """Add features (B, D) and embeddings (B, d) of the same samples."""
        self._add(features, embeddings)


class EffectiveRank(_OfMoments):
    """The effective rank of centred features, see :func:`solo_dimreg.functional.effective_rank`.

    Args:
        center: Subtract the mean first, as the monitor does.

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
        self.center = center

    def of_moments(self, moments: Moments) -> Tensor:
        """Compute the effective rank from the moments."""
        return entropy(moments.spectrum.sqrt() if self.center else moments.singular_values).exp()


class GeometricMeanLID(_OfFeatures):
    """The geometric mean of the LID, see :func:`solo_dimreg.functional.geometric_mean_lid`.

    Args:
        k: Number of neighbours; LDReg's authors track 32 and 512.
        estimator: "mom" or "mle"; LDReg's authors track "mle".
    """

    def __init__(self, k: int = 32, estimator: str = "mom", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_lid_options(k, estimator)
        self.function = partial(functional.geometric_mean_lid, k=k, estimator=estimator)


class MatrixEntropy(_OfFeatures):
    """The matrix-based entropy in nats, see :func:`solo_dimreg.functional.matrix_entropy`.

    Args:
        order: The order of the entropy, 1 or 2; 1 needs eigenvalues.
    """

    def __init__(self, order: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_order(order)
        self.function = partial(of_few, partial(functional.matrix_entropy, order=order))


class MatrixMutualInformation(_OfFeaturesAndEmbeddings):
    """The mutual information I(R;Z) in nats, see :func:`solo_dimreg.functional.matrix_mutual_information`.

    Args:
        order: The order of the entropies, 1 or 2; 1 needs eigenvalues.
    """

    def __init__(self, order: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_order(order)
        self.function = partial(of_few, partial(functional.matrix_mutual_information, order=order))


def _class_of(record: MetricRecord) -> type[Metric]:
    content: dict[str, Any] = {"__module__": __name__, "__doc__": f"{record.label}. {record.explanation}"}
    if record.of_moments is not None:
        content["of_moments"] = staticmethod(record.of_moments)
        return type(record.torchmetrics, (_OfMoments,), content)
    assert record.function is not None
    content["function"] = staticmethod(record.function)
    base = {ROWS: _OfFeatures, VIEWS: _OfViews}.get(record.inputs, _OfFeaturesAndEmbeddings)
    return type(record.torchmetrics, (base,), content)


for _record in METRICS.values():
    if _record.torchmetrics and _record.torchmetrics not in globals():
        globals()[_record.torchmetrics] = _class_of(_record)
