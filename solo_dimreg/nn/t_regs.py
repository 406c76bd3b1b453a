"""T-REGS as a module."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from solo_dimreg.distributed import all_gather, broadcast, rank, world_size
from solo_dimreg.functional._checks import check_between
from solo_dimreg.functional.t_regs import spanning_tree, t_reg_loss_of
from solo_dimreg.nn._regularizer import Regularizer, Views


class TREGS(Regularizer):
    """A loss that lengthens the minimum spanning tree of each view near the unit sphere [1, eq. 9].

    It is the sum of the views' T-REG losses, see :func:`solo_dimreg.functional.t_reg_loss`. Each view has a
    tree of its own, through the embeddings of all processes. One process computes it for all.

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

    defaults: ClassVar[dict[str, Any]] = {"where": "embeddings"}

    def __init__(self, sphere_weight: float = 0.004) -> None:
        super().__init__()
        check_between("sphere_weight", sphere_weight, 0)
        self.sphere_weight = sphere_weight

    def _loss(self, views: list[Tensor], momentum_views: Views) -> Tensor:
        gathered = [all_gather(view) for view in views]
        # The views are divided among the processes, which compute their trees at the same time.
        makers = [number % world_size() for number in range(len(gathered))]
        trees = [
            spanning_tree(view.detach())
            if rank() == maker
            else view.new_empty(2, len(view) - 1, dtype=torch.long)
            for view, maker in zip(gathered, makers, strict=True)
        ]
        losses = [
            t_reg_loss_of(view, broadcast(tree, maker), self.sphere_weight)
            for view, tree, maker in zip(gathered, trees, makers, strict=True)
        ]
        return torch.stack(losses).sum()
