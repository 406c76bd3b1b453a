"""Losses that spread the features over the sphere."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from solo_dimreg.distributed import all_gather
from solo_dimreg.functional._checks import check_bool
from solo_dimreg.functional.information import uniformity, wasserstein_uniformity
from solo_dimreg.functional.koleo import koleo_loss
from solo_dimreg.nn._regularizer import Regularizer, Views


class Uniformity(Regularizer):
    """A loss that spreads the features of each view evenly over the sphere [1, sec. 4].

    It is the mean of the views' uniformities over all processes, see
    :func:`solo_dimreg.functional.uniformity`.

    References:
        [1] Wang & Isola, Understanding Contrastive Representation Learning through Alignment and Uniformity
            on the Hypersphere, ICML 2020.

    Example:
        >>> loss = Uniformity()(torch.randn(32, 16))
    """

    defaults: ClassVar[dict[str, Any]] = {"where": "embeddings"}

    def _loss(self, views: list[Tensor], momentum_views: Views) -> Tensor:
        return torch.stack([uniformity(all_gather(view)) for view in views]).mean()


class KoLeo(Regularizer):
    """A loss that parts each feature of a view from its nearest neighbour in that view [1].

    It is the mean of the views' KoLeo losses, see :func:`solo_dimreg.functional.koleo_loss`. Neighbours are
    sought over all processes; DINOv2 seeks them within one.

    References:
        [1] Sablayrolles et al., Spreading vectors for similarity search, ICLR 2019.

    Example:
        >>> loss = KoLeo()(torch.randn(32, 16))
    """

    def _loss(self, views: list[Tensor], momentum_views: Views) -> Tensor:
        return torch.stack([koleo_loss(all_gather(view)) for view in views]).mean()


class WassersteinUniformity(Regularizer):
    """A loss that spreads the features of all views together evenly over all axes of the sphere [1].

    See :func:`solo_dimreg.functional.wasserstein_uniformity`. The loss is taken over all processes. All views
    are one batch, as in the released code of [1].

    References:
        [1] Fang et al., Rethinking the Uniformity Metric in Self-Supervised Learning, ICLR 2024.

    Args:
        float64: compute in float64, see :func:`solo_dimreg.functional.wasserstein_uniformity`.

    Example:
        >>> loss = WassersteinUniformity()(torch.randn(32, 16))
    """

    defaults: ClassVar[dict[str, Any]] = {"where": "embeddings"}

    def __init__(self, float64: bool = True) -> None:
        super().__init__()
        check_bool("float64", float64)
        self.float64 = float64

    def _loss(self, views: list[Tensor], momentum_views: Views) -> Tensor:
        return wasserstein_uniformity(torch.cat([all_gather(view) for view in views]), self.float64)
