"""LeJEPA and its regularizer, SIGReg, as modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from solo_dimreg.distributed import all_mean, world_size
from solo_dimreg.functional._checks import check_between, check_int
from solo_dimreg.functional._precision import full_precision
from solo_dimreg.functional.sigreg import characteristic_function, check_sigreg_options, epps_pulley
from solo_dimreg.nn._regularizer import Regularizer, Views, WithOptions, as_views
from solo_dimreg.nn._slices import RandomSlices


class SIGReg(Regularizer):
    """A loss that makes the embeddings of each view an isotropic Gaussian, the mean of the views' SIGReg [1].

    See :func:`solo_dimreg.functional.sigreg_loss`. The slices are drawn anew at every step, and are the same
    on all processes. Only the characteristic functions are sent, to be averaged over the processes.

    References:
        [1] Balestriero & LeCun, LeJEPA: Provable and Scalable Self-Supervised Learning Without the
            Heuristics, arXiv 2511.08544, 2025.

    Args:
        num_slices: number of random directions, at least 1.
        knots: number of values of t, from 0 to ``t_max``, at least 2.
        t_max: the largest t, above 0.

    Raises:
        ValueError: an option is out of range.

    Example:
        >>> loss = SIGReg()(torch.randn(32, 16))
    """

    defaults: ClassVar[dict[str, Any]] = {"where": "embeddings"}

    def __init__(self, num_slices: int = 1024, knots: int = 17, t_max: float = 3.0) -> None:
        super().__init__()
        check_int("num_slices", num_slices, minimum=1)
        check_sigreg_options(knots, t_max)
        self.knots = knots
        self.t_max = t_max
        self.slices = RandomSlices(num_slices)

    def _loss(self, views: list[Tensor], momentum_views: Views) -> Tensor:
        slices = self.slices(views[0])
        projections = torch.cat([view @ slices for view in views], dim=1)
        rows = len(views[0])
        characteristic = all_mean(characteristic_function(projections, self.knots, self.t_max), rows)
        return epps_pulley(characteristic, rows * world_size(), self.t_max)


class LeJEPA(WithOptions):
    """The loss of LeJEPA: the views of an image agree, and their embeddings are a Gaussian [1].

    The loss is ``(1 - weight) * invariance + weight * SIGReg``. The gradient reaches all views; there is no
    teacher and no stop-gradient. The invariance is the mean squared difference of all views from the mean of
    the large ones, over views, samples and axes. After each call ``metrics`` holds both terms, detached and
    unweighted.

    References:
        [1] Balestriero & LeCun, LeJEPA: Provable and Scalable Self-Supervised Learning Without the
            Heuristics, arXiv 2511.08544, 2025; the released code decides where the paper is silent.

    Args:
        weight: lambda of [1], from 0 to 1.
        num_slices: number of random directions, see :class:`SIGReg`.
        knots: number of values of t, see :class:`SIGReg`.
        t_max: the largest t, see :class:`SIGReg`.

    Raises:
        ValueError: an option is out of range.

    Example:
        >>> loss = LeJEPA()(torch.randn(2, 32, 16).unbind(), small_views=torch.randn(6, 32, 16).unbind())
    """

    def __init__(
        self, weight: float = 0.05, num_slices: int = 1024, knots: int = 17, t_max: float = 3.0
    ) -> None:
        super().__init__()
        check_between("weight", weight, 0, 1)
        self.weight = weight
        self.sigreg = SIGReg(num_slices, knots, t_max)
        self.metrics: dict[str, Tensor] = {}

    @full_precision
    def forward(self, views: Sequence[Tensor], small_views: Sequence[Tensor] = ()) -> Tensor:
        """Compute the loss over all processes.

        Args:
            views: embeddings of the large crops, each of shape (B, D).
            small_views: embeddings of the small crops, each of shape (B, D).

        Returns:
            The loss, a scalar, the same on every process.

        Raises:
            ValueError: there are fewer than two views, there are no large views, or the shapes do not fit.
        """
        large = as_views("views", views, minimum=1)
        stacked = torch.stack(as_views("views and small_views", [*large, *small_views], minimum=2))
        differences = stacked - stacked[: len(large)].mean(dim=0)
        invariance = all_mean((differences**2).mean(), stacked.shape[1])
        sigreg = self.sigreg(list(stacked.unbind()))
        self.metrics = {"invariance": invariance.detach(), "sigreg": sigreg.detach()}
        return (1 - self.weight) * invariance + self.weight * sigreg
