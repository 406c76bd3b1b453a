"""DirectCLR: InfoNCE on the first entries of the features, without a projector."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from solo_dimreg.errors import ConfigError
from solo_dimreg.functional._checks import check_int, check_pair, check_positive
from solo_dimreg.functional._precision import full_precision, matmul


@full_precision
def directclr_loss(r1: Tensor, r2: Tensor, dim: int = 360, temperature: float = 0.1) -> Tensor:
    """Compute InfoNCE between the first ``dim`` entries of the features of two views [1, sec. 6].

    The last residual block of the backbone carries the gradient from these entries to all others, so no
    projector is needed to keep the features from collapsing.

    References:
        [1] Jing et al., Understanding Dimensional Collapse in Contrastive Self-Supervised Learning, ICLR
            2022.

    Args:
        r1: features of the first view, shape (B, D).
        r2: features of the second view, shape (B, D).
        dim: number of leading entries used, from 1 to D.
        temperature: temperature of the softmax, above 0.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: ``dim`` exceeds the width, an option is out of range, or the shapes do not fit.
    """
    check_pair("r1", r1, "r2", r2)
    check_int("dim", dim, minimum=1)
    if dim > r1.shape[1]:
        raise ConfigError(f"dim must be an integer from 1 to the width of r1, {r1.shape[1]}, got {dim}.")
    return info_nce_loss(r1[:, :dim], r2[:, :dim], temperature)


@full_precision
def info_nce_loss(z1: Tensor, z2: Tensor, temperature: float = 0.1) -> Tensor:
    """Compute InfoNCE on normalized rows, averaged over both directions [1].

    Row i of one view has row i of the other view as its positive, and all other rows of the other view as
    negatives. Rows of its own view are not used. It is ``infoNCE`` of ``main.py`` in the code released with
    [1].

    References:
        [1] Jing et al., Understanding Dimensional Collapse in Contrastive Self-Supervised Learning, ICLR
            2022.

    Args:
        z1: embeddings of the first view, shape (B, d).
        z2: embeddings of the second view, shape (B, d).
        temperature: temperature of the softmax, above 0.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: the temperature is not above 0, or the shapes do not fit.
    """
    check_pair("z1", z1, "z2", z2)
    check_positive("temperature", temperature)
    return inner_product_info_nce_loss(normalize_rows(z1), normalize_rows(z2), temperature)


def inner_product_info_nce_loss(z1: Tensor, z2: Tensor, temperature: float = 0.1) -> Tensor:
    """Compute `info_nce_loss` without normalizing: the similarity of two rows is their inner product."""
    logits = matmul(z1 / temperature, z2.T)
    positives = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, positives) + F.cross_entropy(logits.T, positives)) / 2


def normalize_rows(x: Tensor) -> Tensor:
    """Scale each row to length 1, however long it is; a row of zeros stays.

    A row whose entries are below 1e-12 gets gradient 0; ``F.normalize`` would give it one of 1e12 and more.
    """
    return _UnitRows.apply(x)[0]


class _UnitRows(torch.autograd.Function):
    """Unit rows, and the factors (B, 1) by which they were scaled; autograd would take twice the passes."""

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        # In units of its largest entry, the squares of a row neither overflow nor vanish.
        peak = torch.maximum(x.amax(dim=1, keepdim=True), -x.amin(dim=1, keepdim=True))
        unit = x / F.threshold(peak, 0, 1)
        length = F.threshold(torch.linalg.vector_norm(unit, dim=1, keepdim=True), 0, 1)
        return unit.div_(length), 1 / F.threshold(peak, 1e-12, torch.inf) / length

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_factor: Tensor) -> Tensor:
        unit, factor = ctx.saved_tensors
        radial = (grad * unit).sum(dim=1, keepdim=True) + factor * grad_factor  # 0 but in a second derivative
        return torch.addcmul(grad, radial, unit, value=-1) * factor
