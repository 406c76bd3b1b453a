"""The effective rank as a regularizer."""

from __future__ import annotations

import torch
from torch import Tensor

from solo_dimreg.distributed import all_gather
from solo_dimreg.functional._checks import check_bool
from solo_dimreg.functional.spectrum import effective_rank
from solo_dimreg.nn._regularizer import Regularizer, Views


class EffectiveRank(Regularizer):
    """A loss that raises the effective rank of the features: its negative logarithm.

    It is minus the entropy of the normalized singular values [1, def. 1] of all views of all processes
    together, and lies between ``-ln min(N, D)`` and 0.

    References:
        [1] Roy & Vetterli, The effective rank: a measure of effective dimensionality, EUSIPCO 2007.

    Args:
        center: subtract the mean of the features first; its direction would otherwise count as one more.

    Raises:
        ValueError: ``center`` is neither true nor false.

    Example:
        >>> loss = EffectiveRank()(torch.randn(32, 16))
    """

    def __init__(self, center: bool = True) -> None:
        super().__init__()
        check_bool("center", center)
        self.center = center

    def _loss(self, views: list[Tensor], momentum_views: Views) -> Tensor:
        features = torch.cat([all_gather(view) for view in views])
        return -effective_rank(features, self.center).log()
