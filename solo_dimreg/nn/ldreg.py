"""LDReg as a module."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from solo_dimreg.distributed import all_gather, rank, world_size
from solo_dimreg.errors import warn
from solo_dimreg.functional._checks import check_choice
from solo_dimreg.functional.ldreg import NORMS, ldreg_penalty
from solo_dimreg.functional.lid import check_lid_options, local_intrinsic_dimensionality
from solo_dimreg.nn._regularizer import Regularizer, Views, as_views

# The sign of the loss for each direction.
DIRECTIONS = {"max": 1, "min": -1}
FEWEST_NEIGHBOURS = 16


class LDReg(Regularizer):
    """A loss that raises the local intrinsic dimensionality (LID) of the features [1, section on LDReg].

    Add it to the loss of any method, with the paper's weights: 0.01 for SimCLR (0.001 with a ViT-B), 0.005
    for BYOL, 0.05 for MoCo, 0.025 for VICReg, 1 for Barlow Twins, 5e-6 for MAE. In the paper a larger weight
    *lowers* the effective rank: SimCLR has 470 without LDReg, and 500, 430 and 320 at 0.01, 0.05 and 0.1. Its
    accuracy is flat in between. On other data it fell after 100 epochs (CIFAR-100 71.2 to 70.6) and rose
    after 1000 (71.6 to 75.1) [1, appendix, table 2].

    Every feature of every view is a query. The reference set is all of these features of all processes,
    without gradient, together with the features of the momentum encoder if there is one. Without momentum
    features the loss is a mean over the queries of all views. With them the views' losses are summed, as in
    the authors' released code.

    References:
        [1] Huang et al., LDReg: Local Dimensionality Regularized Self-Supervised Learning, ICLR 2024.

    Args:
        k: number of neighbours. It is capped at the number that there are, with one warning. None stands for
            a 32nd of the batch size of all processes, as in [1, appendix] (16 at 512, 32 at 1024, 64 at
            2048), but at least 16.
        estimator: "mom" or "mle", see :func:`solo_dimreg.functional.local_intrinsic_dimensionality`.
        norm: "l1" or "l2", see :func:`solo_dimreg.functional.ldreg_penalty`.
        direction: "max" raises the LID. "min" is the same term with the opposite sign; [1, appendix G.2]
            shows by it that local collapse brings complete collapse: SimCLR with weights 0.01, 0.1 and 1 had
            effective ranks of 151, 15 and 1.

    Raises:
        ValueError: an option is unknown or out of range.

    Example:
        >>> regularizer = LDReg(k=8)
        >>> features1, features2 = torch.randn(2, 32, 64).unbind()
        >>> loss = 0.01 * regularizer([features1, features2])
    """

    defaults: ClassVar[dict[str, Any]] = {"weight": 0.01, "warmup_epochs": 10}  # the paper's for SimCLR

    def __init__(
        self, k: int | None = None, estimator: str = "mom", norm: str = "l1", direction: str = "max"
    ) -> None:
        super().__init__()
        # True once the user knows that k is capped; the run summary of a training says so at its start.
        self.cap_is_known = False
        check_lid_options(FEWEST_NEIGHBOURS if k is None else k, estimator)
        check_choice("norm", norm, NORMS)
        check_choice("direction", direction, DIRECTIONS)
        self.k = k
        self.estimator = estimator
        self.norm = norm
        self.direction = direction

    def neighbours(self, batch: int) -> int:
        """Return k for a batch of all processes, before it is capped."""
        return max(batch // 32, FEWEST_NEIGHBOURS) if self.k is None else self.k

    def _loss(self, views: list[Tensor], momentum_views: Views) -> Tensor:
        momentum = as_views("momentum_views", momentum_views)
        if momentum and momentum[0].shape[1] != views[0].shape[1]:
            raise ValueError(
                "momentum_views must be as wide as views, got widths "
                f"{momentum[0].shape[1]} and {views[0].shape[1]}."
            )
        # Gathered view by view, as other losses do, so that each view is sent once. One process sends none.
        queries = torch.cat(views)
        reference, own_rows = queries.detach(), torch.arange(len(queries), device=queries.device)
        if world_size() > 1:
            reference = torch.cat([all_gather(view).detach() for view in views])
            b, w = len(views[0]), world_size()
            own_rows = own_rows + (own_rows // b * (w - 1) + rank()) * b
        if momentum:
            reference = torch.cat([reference, *(all_gather(view) for view in momentum)]).detach()
        k = self.neighbours(len(views[0]) * world_size())
        # Only shapes decide here. A compiled module must not change its state in between.
        most = len(reference) - 1
        if not torch.compiler.is_compiling() and k > most and not self.cap_is_known:
            self.cap_is_known = True
            warn(
                f"LDReg: k = {k} is capped at {most}, the number of other features in a step; "
                f"give k <= {most}, or a larger batch."
            )
        lids = local_intrinsic_dimensionality(queries, reference, k, self.estimator, self_indices=own_rows)
        by_view = all_gather(lids.view(len(views), -1).T)
        # With momentum features, the losses of the views are summed.
        groups = by_view.unbind(dim=1) if momentum else [by_view]
        return DIRECTIONS[self.direction] * torch.stack([ldreg_penalty(g, self.norm) for g in groups]).sum()
