"""LDReg: moves the local intrinsic dimensionality of every point away from 1."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from solo_dimreg.functional._checks import check_choice
from solo_dimreg.functional._precision import full_precision
from solo_dimreg.functional.lid import local_intrinsic_dimensionality

NORMS = ("l1", "l2")


@full_precision
def ldreg_loss(
    x: Tensor,
    reference: Tensor | None = None,
    k: int = 64,
    estimator: str = "mom",
    norm: str = "l1",
    self_indices: Tensor | None = None,
) -> Tensor:
    """Compute the local dimensionality regularizer of LDReg, to be minimized [1, section on LDReg].

    The Fisher-Rao distance between the local distance distributions of a point and of a line is ``|ln LID|``,
    and maximizing it raises the LID. The gradient reaches the queries only: ``reference`` is detached, also
    where it is the batch itself. For the loss over the views and processes of a training step, see
    :class:`solo_dimreg.LDReg`.

    References:
        [1] Huang et al., LDReg: Local Dimensionality Regularized Self-Supervised Learning, ICLR 2024.

    Args:
        x: queries, shape (B, D).
        reference: points among which neighbours are sought, shape (N, D); None for the batch itself.
        k: number of neighbours, capped at the number there are.
        estimator: "mom" or "mle", see :func:`local_intrinsic_dimensionality`.
        norm: "l1" or "l2", see :func:`ldreg_penalty`.
        self_indices: the row of each query in ``reference``, shape (B,), where it is there.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: an option is unknown or out of range, or the shapes do not fit.
    """
    check_choice("norm", norm, NORMS)
    if reference is None and self_indices is None:
        reference, self_indices = x, torch.arange(len(x), device=x.device)
    reference = None if reference is None else reference.detach()
    return ldreg_penalty(local_intrinsic_dimensionality(x, reference, k, estimator, self_indices), norm)


@full_precision
def ldreg_penalty(lids: Tensor, norm: str = "l1") -> Tensor:
    """Compute LDReg's loss from estimated LIDs [1, section on LDReg].

    ``"l1"`` is ``-mean_i ln LID_i``, and minimizing it raises every LID. ``"l2"`` is ``-sqrt(mean_i (ln
    LID_i)^2)``, and minimizing it moves every LID away from 1, so it lowers a LID below 1 further. The
    authors' released code differs in both. Its l1 takes ``|ln LID_i|``, which lowers a LID below 1 further.
    Its l2 takes the root of each sample by itself, which makes it equal to its l1.

    References:
        [1] Huang et al., LDReg: Local Dimensionality Regularized Self-Supervised Learning, ICLR 2024.

    Args:
        lids: LID of each query, any shape, above 0.
        norm: "l1" or "l2".

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: the norm is unknown.
    """
    check_choice("norm", norm, NORMS)
    if norm == "l1":
        return -lids.log().mean()
    # A norm, unlike a square root, has gradient 0 at 0.
    return -torch.linalg.vector_norm(lids.log()) / math.sqrt(lids.numel())
