"""VISReg as a module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from solo_dimreg.distributed import all_gather
from solo_dimreg.functional._checks import check_int
from solo_dimreg.functional._precision import full_precision
from solo_dimreg.functional.visreg import check_visreg_options, visreg_loss
from solo_dimreg.nn._slices import RandomSlices
from solo_dimreg.nn._views import as_views


class VISReg(nn.Module):
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

    #: What a config may leave out.
    defaults: ClassVar[dict[str, Any]] = {"where": "embeddings"}
    #: The loss is computed over all processes, so that the log need not average it.
    same_on_all_processes: ClassVar[bool] = True

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
        self.weights = {
            "scale_weight": scale_weight,
            "shape_weight": shape_weight,
            "center_weight": center_weight,
        }
        self.eps = eps
        self.slices = RandomSlices(num_slices)

    @full_precision
    def forward(
        self, views: Tensor | Sequence[Tensor], momentum_views: Tensor | Sequence[Tensor] = ()
    ) -> Tensor:
        """Compute the loss over the views of all processes.

        Args:
            views: embeddings of V views, each of shape (B, D), or one tensor for a single view.
            momentum_views: not used; every regularizer is called with both.

        Returns:
            The loss, a scalar, the same on every process.

        Raises:
            ValueError: there are no views, or the shapes do not fit.
        """
        listed = as_views("views", views, minimum=1)
        slices = self.slices(listed[0])
        losses = [visreg_loss(all_gather(view), slices, **self.weights, eps=self.eps) for view in listed]
        return torch.stack(losses).mean()

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        return ", ".join(f"{name}={value}" for name, value in {**self.weights, "eps": self.eps}.items())
