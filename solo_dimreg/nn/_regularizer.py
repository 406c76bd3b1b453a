"""Call, check and print all regularizers in the same way."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from solo_dimreg.functional._checks import check_features
from solo_dimreg.functional._precision import full_precision

Views = Tensor | Sequence[Tensor]


def as_views(name: str, views: Views, minimum: int = 0) -> list[Tensor]:
    """Return the views as a list of at least ``minimum`` tensors of one shape (B, D).

    Raises:
        ValueError: there are too few views, one is not of shape (B, D), or their shapes differ.
    """
    listed = [views] if isinstance(views, Tensor) else list(views)
    if len(listed) < minimum:
        raise ValueError(f"{name} must hold at least {minimum} tensors of shape (B, D), got {len(listed)}.")
    for view in listed:
        check_features(name, view)
    if len({view.shape for view in listed}) > 1:
        raise ValueError(f"{name} must all have the same shape, got {[tuple(v.shape) for v in listed]}.")
    return listed


class WithOptions(nn.Module):
    """A module whose options are attributes with the names of the arguments, and are printed."""

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        options = [name for name in inspect.signature(type(self)).parameters if name in vars(self)]
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in options)


class Regularizer(WithOptions, ABC):
    """A loss on the views of a batch, from which a subclass writes ``_loss``.

    A class attribute ``defaults`` holds what a config may leave out.
    """

    #: The loss is computed over all processes, so that the log need not average it.
    same_on_all_processes: ClassVar[bool] = True

    @full_precision
    def forward(self, views: Views, momentum_views: Views = ()) -> Tensor:
        """Compute the loss over the views of all processes.

        Args:
            views: features or embeddings of V views, each of shape (B, D), or one tensor for a single view.
            momentum_views: features of the momentum encoder, each of shape (M, D), which only LDReg uses.

        Returns:
            The loss, a scalar, the same on every process.

        Raises:
            ValueError: there are no views, or the shapes do not fit.
        """
        return self._loss(as_views("views", views, minimum=1), momentum_views)

    @abstractmethod
    def _loss(self, views: list[Tensor], momentum_views: Views) -> Tensor: ...
