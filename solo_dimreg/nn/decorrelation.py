"""Whitening layers with running statistics, and decorrelation as a regularizer."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from solo_dimreg.distributed import all_gather, broadcast, rank, world_size
from solo_dimreg.functional._checks import check_between, check_bool, check_features, check_int
from solo_dimreg.functional._precision import full_precision
from solo_dimreg.functional.decorrelation import (
    automatic_groups,
    check_decorrelation_options,
    check_groups,
    decorrelation_loss,
    whiten_batch,
    whiten_with,
    whitening_statistics,
    zca_whiten,
)
from solo_dimreg.functional.spectrum import inverse_square_root
from solo_dimreg.nn._buffers import Float32Buffers
from solo_dimreg.nn._regularizer import Regularizer, Views


class DecorrelatedBatchNorm(Float32Buffers):
    """A batch normalization that also decorrelates the axes of each group, by ZCA [1; 2].

    In training it whitens with the statistics of the batch over all processes, and keeps running statistics.
    In evaluation it whitens with the running statistics. Like ``nn.BatchNorm1d``, it divides by the batch
    size in training and by one less in the running covariance; with as many groups as axes both are equal.

    References:
        [1] Huang et al., Decorrelated Batch Normalization, CVPR 2018.
        [2] Hua et al., On Feature Decorrelation in Self-Supervised Learning, ICCV 2021.

    Args:
        num_features: number of axes D.
        num_groups: number of groups of consecutive axes, a divisor of D. A group must have fewer axes than
            the batch has samples. "auto" takes the fewest groups that have at most half as many axes as the
            first batch has samples, after [2]'s released code, and at most 256, since the time to decompose
            a group grows as the cube of its axes.
        eps: added to the eigenvalues of the covariance, at least 0; [2]'s released code has 0.
        momentum: weight of the batch in the running statistics, from 0 to 1.
        affine: learn a scale and a shift of each axis.
        track_running_stats: keep running statistics. Without them evaluation whitens with the statistics of
            its own batches (of one process, not gathered), as in [2]'s released code. A row then depends on
            the others of its batch, and a batch that is too small for the groups is split into more groups.
        float64: compute the statistics of a batch in float64, see
            :func:`solo_dimreg.functional.zca_whiten`; running statistics are float32.

    Raises:
        ValueError: an option is out of range; in training, the batch is too small for the groups.

    Example:
        >>> whitened = DecorrelatedBatchNorm(16, num_groups=2)(torch.randn(32, 16))
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor
    running_covariance: Tensor

    def __init__(
        self,
        num_features: int,
        num_groups: int | str = 1,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = True,
        float64: bool = True,
    ) -> None:
        super().__init__()
        check_int("num_features", num_features, minimum=1)
        self.automatic = num_groups == "auto"
        # Each axis is a group of its own until the first batch is seen.
        self.num_groups = check_groups(num_features, num_features if self.automatic else num_groups)
        check_between("eps", eps, 0)
        check_between("momentum", momentum, 0, 1)
        check_bool("float64", float64)
        self.num_features = num_features
        self.track_running_stats = track_running_stats
        self.eps = eps
        self.momentum = momentum
        self.float64 = float64
        self.register_parameter("weight", nn.Parameter(torch.ones(num_features)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(num_features)) if affine else None)
        self.register_buffer("running_mean", torch.zeros(num_features) if track_running_stats else None)
        self.register_buffer("running_covariance", self._identity() if track_running_stats else None)
        self._whitening: tuple[Tensor, int, Tensor] | None = None
        self._settled = not self.automatic

    @full_precision
    def forward(self, x: Tensor) -> Tensor:
        """Return the whitened embeddings, (B, D) to (B, D), in float32 at least.

        Raises:
            ValueError: the shape is wrong, or in training the batch is too small for the groups.
        """
        check_features("x", x)
        if x.shape[1] != self.num_features:
            raise ValueError(f"x must have {self.num_features} axes, got shape {tuple(x.shape)}.")
        if self.training:
            batch = all_gather(x)
            # Every process whitens all rows, by one product more for each process, and keeps its own.
            whitened = self._whiten_batch(batch, self._groups(len(batch))).chunk(world_size())[rank()]
        elif self.track_running_stats:
            whitened = whiten_with(x, self.running_mean, self._running_whitening())
        else:
            whitened = zca_whiten(x, self._groups_for(len(x)), self.eps, self.float64)
        whitened = whitened.to(x.dtype)
        return whitened if self.weight is None or self.bias is None else whitened * self.weight + self.bias

    def _whiten_batch(self, batch: Tensor, groups: int) -> Tensor:
        whitened, mean, covariance = whiten_batch(batch, groups, self.eps, self.float64)
        self._track(mean, covariance, len(batch))
        return whitened

    def _groups(self, samples: int) -> int:
        if self.automatic and not (self._settled and self.track_running_stats):
            self._settle(automatic_groups(self.num_features, samples))
        return self.num_groups

    def _groups_for(self, samples: int) -> int:
        """Return the number of groups in evaluation; a batch that is too small for them gets more groups."""
        least = self._groups(samples)
        fitting = (g for g in range(least, self.num_features + 1) if self.num_features % g == 0)
        return next((g for g in fitting if self.num_features // g < samples), self.num_features)

    def _settle(self, num_groups: int) -> None:
        self.num_groups, self._settled = num_groups, True
        if self.track_running_stats:
            self.running_covariance = self._identity().to(self.running_covariance)

    def _identity(self) -> Tensor:
        return torch.eye(self.num_features // self.num_groups).repeat(self.num_groups, 1, 1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}running_covariance")
        if self.automatic and saved is not None:
            self._settle(len(saved))
            # With as many groups as axes, the saved layer may not have seen a batch.
            self._settled = len(saved) < self.num_features
        super()._load_from_state_dict(state_dict, prefix, *args)

    @torch.no_grad()
    def _track(self, mean: Tensor, covariance: Tensor, samples: int) -> None:
        if not self.track_running_stats:
            return
        unbiased = covariance * (samples / (samples - 1))
        pairs = ((self.running_mean, mean), (self.running_covariance, unbiased))
        news = [new.to(running) for running, new in pairs]
        # A batch that overflowed would leave NaN in the running statistics for ever.
        finite = torch.stack([new.isfinite().all() for new in news]).all()
        for (running, _), new in zip(pairs, news, strict=True):
            running.lerp_(torch.where(finite, new, running), self.momentum)

    def _running_whitening(self) -> Tensor:
        """Return the inverse square root of the running covariance, computed again only when that changed."""
        covariance = self.running_covariance
        inference = covariance.is_inference() or torch.is_inference_mode_enabled()
        if torch.compiler.is_compiling() or inference:
            return inverse_square_root(covariance, self.eps)
        kept = self._whitening
        if kept is None or kept[0] is not covariance or kept[1] != covariance._version:
            root = inverse_square_root(covariance, self.eps)
            kept = self._whitening = covariance, covariance._version, root
        return kept[2]

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        return (
            f"{self.num_features}, num_groups={self.num_groups}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.weight is not None}, track_running_stats={self.track_running_stats}"
        )


class ShuffledDBN(DecorrelatedBatchNorm):
    """A decorrelated batch normalization with groups drawn anew at every training step [1].

    It permutes the axes at random before the grouping and puts them back after it, so that every pair of axes
    is decorrelated in time. All processes use the permutation of rank 0. The running statistics belong to
    consecutive axes, and evaluation does not shuffle.

    References:
        [1] Hua et al., On Feature Decorrelation in Self-Supervised Learning, ICCV 2021.

    The arguments and errors are the same as for :class:`DecorrelatedBatchNorm`. With one group, shuffling
    changes nothing.
    """

    def _whiten_batch(self, batch: Tensor, groups: int) -> Tensor:
        if self.track_running_stats:
            self._track(*whitening_statistics(batch.detach(), groups, self.float64), len(batch))
        order = broadcast(torch.randperm(self.num_features, device=batch.device))
        return zca_whiten(batch[:, order], groups, self.eps, self.float64)[:, order.argsort()]


class Decorrelation(Regularizer):
    """A penalty on correlated axes and on axes that vanish, averaged over the views.

    See :func:`solo_dimreg.functional.decorrelation_loss`. The statistics of a view are taken over all
    processes.

    Args:
        correlation_weight: weight of the squared correlations, at least 0.
        variance_weight: weight of the hinge on the standard deviation, at least 0.
        target_std: standard deviation from which an axis is not penalized, above 0.

    Raises:
        ValueError: an option is out of range.

    Example:
        >>> loss = Decorrelation()(torch.randn(32, 16))
    """

    defaults: ClassVar[dict[str, Any]] = {"where": "embeddings"}

    def __init__(
        self, correlation_weight: float = 1.0, variance_weight: float = 1.0, target_std: float = 1.0
    ) -> None:
        super().__init__()
        check_decorrelation_options(correlation_weight, variance_weight, target_std)
        self.correlation_weight = correlation_weight
        self.variance_weight = variance_weight
        self.target_std = target_std

    def _loss(self, views: list[Tensor], momentum_views: Views) -> Tensor:
        options = self.correlation_weight, self.variance_weight, self.target_std
        losses = [decorrelation_loss(all_gather(view), *options) for view in views]
        return torch.stack(losses).mean()
