"""T-REGS as a module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from solo_dimreg.distributed import all_gather
from solo_dimreg.functional._checks import check_between
from solo_dimreg.functional._precision import full_precision
from solo_dimreg.functional.t_regs import t_reg_loss
from solo_dimreg.nn._views import as_views


class TREGS(nn.Module):
    """A loss that lengthens the minimum spanning tree of each view near the unit sphere [1, eq. 9].

    It is the sum of the views' T-REG losses, see :func:`solo_dimreg.functional.t_reg_loss`. Each view has a
    tree of its own, through the embeddings of all processes.

    References:
        [1] Mordacq et al., T-REGS: Minimum Spanning Tree Regularization for Self-Supervised Learning, NeurIPS
            2025, arXiv 2510.23484.

    Args:
        sphere_weight: weight of the pull to the unit sphere, at least 0; lambda over gamma of [1].

    Raises:
        ValueError: the option is out of range.

    Example:
        >>> loss = TREGS()(torch.randn(32, 16))
    """

    #: What a config may leave out.
    defaults: ClassVar[dict[str, Any]] = {"where": "embeddings"}
    #: The loss is computed over all processes, so that the log need not average it.
    same_on_all_processes: ClassVar[bool] = True

    def __init__(self, sphere_weight: float = 0.004) -> None:
        super().__init__()
        check_between("sphere_weight", sphere_weight, 0)
        self.sphere_weight = sphere_weight

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
        return torch.stack([t_reg_loss(all_gather(view), self.sphere_weight) for view in listed]).sum()

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        return f"sphere_weight={self.sphere_weight}"
