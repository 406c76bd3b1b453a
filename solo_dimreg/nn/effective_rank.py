"""The effective rank as a regularizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from solo_dimreg.distributed import all_gather
from solo_dimreg.errors import ConfigError
from solo_dimreg.functional._precision import full_precision
from solo_dimreg.functional.spectrum import effective_rank
from solo_dimreg.nn._views import as_views


class EffectiveRank(nn.Module):
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

    #: The loss is computed over all processes, so that the log need not average it.
    same_on_all_processes: ClassVar[bool] = True

    def __init__(self, center: bool = True) -> None:
        super().__init__()
        if not isinstance(center, bool):
            raise ConfigError(f"center must be true or false, got {center!r}.")
        self.center = center

    @full_precision
    def forward(
        self, views: Tensor | Sequence[Tensor], momentum_views: Tensor | Sequence[Tensor] = ()
    ) -> Tensor:
        """Compute the loss over the views of all processes.

        Args:
            views: features of V views, each of shape (B, D), or one tensor for a single view.
            momentum_views: not used; every regularizer is called with both.

        Returns:
            The loss, a scalar, the same on every process.

        Raises:
            ValueError: there are no views, or the shapes do not fit.
        """
        features = torch.cat([all_gather(view) for view in as_views("views", views, minimum=1)])
        return -effective_rank(features, self.center).log()

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        return f"center={self.center}"
