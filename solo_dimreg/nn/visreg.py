"""VISReg as a module."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from solo_dimreg.distributed import all_gather
from solo_dimreg.functional._checks import check_int
from solo_dimreg.functional.visreg import check_visreg_options, visreg_loss
from solo_dimreg.nn._regularizer import Regularizer, Views
from solo_dimreg.nn._slices import RandomSlices


class VISReg(Regularizer):
    """A loss that regularizes the scale, the shape and the centre of the embeddings of each view [1].

    It is the mean of the views' VISReg losses, see :func:`solo_dimreg.functional.visreg_loss`. The invariance
    of [1] is left to the method. The slices are drawn anew at every step and are the same on all processes,
    whose embeddings are sorted together; in [1], each process sorts its own embeddings on its own slices.

    References:
        [1] Wu et al., VISReg: Variance-Invariance-Sketching Regularization for JEPA training, arXiv
            2606.02572, 2026.

    Args:
        num_slices: number of random directions, at least 1.
        scale_weight: weight of the standard deviations, at least 0.
        shape_weight: weight of the slices, at least 0.
        center_weight: weight of the mean, at least 0.
        eps: added to the standard deviations that divide, above 0.

    Raises:
        ValueError: an option is out of range.

    Example:
        >>> loss = VISReg()(torch.randn(32, 16))
    """

    defaults: ClassVar[dict[str, Any]] = {"where": "embeddings"}

    def __init__(
        self,
        num_slices: int = 4096,
        scale_weight: float = 1.0,
        shape_weight: float = 1.0,
        center_weight: float = 1.0,
        eps: float = 1e-4,
    ) -> None:
        super().__init__()
        check_int("num_slices", num_slices, minimum=1)
        check_visreg_options(scale_weight, shape_weight, center_weight, eps)
        self.scale_weight = scale_weight
        self.shape_weight = shape_weight
        self.center_weight = center_weight
        self.eps = eps
        self.slices = RandomSlices(num_slices)

    def _loss(self, views: list[Tensor], momentum_views: Views) -> Tensor:
        slices = self.slices(views[0])
        options = self.scale_weight, self.shape_weight, self.center_weight, self.eps
        losses = [visreg_loss(all_gather(view), slices, *options) for view in views]
        return torch.stack(losses).mean()
