"""Matrix-based entropy and mutual information, uniformity and alignment."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from solo_dimreg.errors import ConfigError
from solo_dimreg.functional._checks import check_features, check_pair
from solo_dimreg.functional._precision import full_precision
from solo_dimreg.functional.directclr import normalize_rows
from solo_dimreg.functional.spectrum import (
    entropy,
    gram_matrix,
    singular_values,
    subtract_mean,
    symmetric_eigenvalues,
)


@full_precision
def matrix_entropy(x: Tensor, order: int = 2) -> Tensor:
    """Compute the matrix-based Renyi entropy of a batch, in nats [1].

    K is the Gram matrix of the normalized rows, scaled to trace 1. The entropy of order 2 is ``S_2 = -ln
    tr(K^2)``, which needs no eigenvalues; the entropy of order 1 is ``S_1 = -sum lambda ln lambda``. Both are
    0 if all rows are parallel, and ln B if all are orthogonal.

    References:
        [1] Sanchez Giraldo et al., Measures of Entropy from Data Using Infinitely Divisible Kernels, IEEE
            Transactions on Information Theory 2015.

    Args:
        x: features, shape (B, D).
        order: 1 or 2.

    Returns:
        The entropy, a scalar; 0 if all rows are 0.

    Raises:
        ValueError: the order is neither 1 nor 2, or ``x`` is not of shape (B, D).
    """
    check_order(order)
    check_features("x", x)
    return ORDERS[order](_trace_one(_smaller_gram(normalize_rows(x))))


@full_precision
def matrix_mutual_information(x: Tensor, y: Tensor, order: int = 2) -> Tensor:
    """Compute the matrix-based mutual information of two sets of features of one batch, in nats [1].

    It is ``I = S(K_x) + S(K_y) - S(K_x * K_y / tr)``, see :func:`matrix_entropy`. The joint Gram matrix is
    the elementwise product of the two.

    References:
        [1] Sanchez Giraldo et al., Measures of Entropy from Data Using Infinitely Divisible Kernels, IEEE
            Transactions on Information Theory 2015.

    Args:
        x: features, shape (B, D).
        y: features of the same samples, shape (B, d).
        order: 1 or 2.

    Returns:
        The mutual information, a scalar.

    Raises:
        ValueError: the order is neither 1 nor 2, or the shapes do not fit.
    """
    return matrix_entropies(x, y, order)[2]


@full_precision
def matrix_entropies(x: Tensor, y: Tensor, order: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the entropy of ``x``, the entropy of ``y`` and their mutual information.

    The Gram matrices of the joint entropy are built once. The arguments and errors are the same as for
    :func:`matrix_mutual_information`.
    """
    check_order(order)
    check_features("x", x)
    check_features("y", y)
    if len(x) != len(y):
        raise ValueError(f"x and y must hold the same samples, got {len(x)} and {len(y)} rows.")
    units = normalize_rows(x), normalize_rows(y)
    grams = [_trace_one(gram_matrix(unit.mT)) for unit in units]
    h_xy = ORDERS[order](_trace_one(grams[0] * grams[1]))
    if order == 1:  # each decomposition of a matrix as wide as the batch costs more than a product
        grams = [_trace_one(_smaller_gram(unit)) for unit in units]
    h_x, h_y = (ORDERS[order](gram) for gram in grams)
    return h_x, h_y, h_x + h_y - h_xy


@full_precision
def uniformity(x: Tensor) -> Tensor:
    """Compute how unevenly the normalized rows cover the sphere; lower is more uniform [1, sec. 4.1].

    It is ``ln mean_{i < j} exp(-2 ||x_i - x_j||^2)``, and 0 for identical rows or a single one.

    References:
        [1] Wang & Isola, Understanding Contrastive Representation Learning through Alignment and Uniformity
            on the Hypersphere, ICML 2020.

    Args:
        x: features, shape (B, D).

    Returns:
        The uniformity, a scalar of at most 0.

    Raises:
        ValueError: ``x`` is not of shape (B, D).
    """
    check_features("x", x)
    b = len(x)
    if b == 1:
        return x[:, :0].sum()
    unit = normalize_rows(x)
    squares = (unit**2).sum(dim=1)
    distances = (squares[:, None] + squares - 2 * gram_matrix(unit.mT)).clamp_min(0)
    itself = torch.eye(b, dtype=torch.bool, device=x.device)
    exponents = (-2 * distances).masked_fill(itself, -torch.inf)
    return torch.logsumexp(exponents.flatten(), 0) - math.log(b * (b - 1))


@full_precision
def wasserstein_uniformity(x: Tensor, float64: bool = True) -> Tensor:
    """Compute how far the normalized rows are from covering the sphere, and all its axes [1].

    It is the 2-Wasserstein distance from the Gaussian with the rows' mean mu and covariance Sigma (divided by
    B) to ``N(0, I / D)``, to which the uniform distribution on the sphere tends: ``sqrt(||mu||^2 + 1 +
    tr Sigma - 2 / sqrt(D) tr Sigma^(1/2))``. It ranges from 0 to sqrt(2), the value for identical rows.
    :func:`uniformity`, in contrast, hardly changes with the number of axes that are filled. If B is below D,
    some axes stay empty whatever the features are.

    References:
        [1] Fang et al., Rethinking the Uniformity Metric in Self-Supervised Learning, ICLR 2024.

    Args:
        x: features, shape (B, D).
        float64: compute the singular values in float64. Without it, values below 1 % of the largest one are
            lost, and with them the gradient that would fill the axes that have collapsed.

    Returns:
        The distance, a scalar; with gradient 0 where it is 0.

    Raises:
        ValueError: ``x`` is not of shape (B, D).
    """
    check_features("x", x)
    unit = normalize_rows(x)
    centred = subtract_mean(unit)
    # The eigenvalues of the root of the covariance are the singular values over the root of B.
    roots = singular_values(centred, float64).sum() / math.sqrt(len(x))
    # ||mu||^2 + tr Sigma is the mean squared length: the share of rows that are not 0, whose gradient is 0.
    square = 1 + (unit.detach() ** 2).sum() / len(x) - 2 / math.sqrt(x.shape[1]) * roots
    # A square within rounding counts as 0, where a root has an infinite slope.
    positive = square > 8 * torch.finfo(x.dtype).eps
    return torch.where(positive, torch.where(positive, square, 1).sqrt(), 0 * square)


@full_precision
def alignment(x1: Tensor, x2: Tensor) -> Tensor:
    """Compute the mean squared distance between the normalized rows of two views [1, sec. 4.1].

    Lower is more aligned.

    References:
        [1] Wang & Isola, Understanding Contrastive Representation Learning through Alignment and Uniformity
            on the Hypersphere, ICML 2020.

    Args:
        x1: features of the first view, shape (B, D).
        x2: features of the second view, shape (B, D).

    Returns:
        The alignment, a scalar from 0 to 4.

    Raises:
        ValueError: the shapes differ, or are not (B, D).
    """
    check_pair("x1", x1, "x2", x2)
    return ((normalize_rows(x1) - normalize_rows(x2)) ** 2).sum(dim=1).mean()


def check_order(order: int) -> None:
    """Raise if the entropy of this order is not implemented."""
    if isinstance(order, bool) or order not in ORDERS:
        raise ConfigError(f"order must be 1 or 2, got {order!r}.")


def _shannon(gram: Tensor) -> Tensor:
    return entropy(symmetric_eigenvalues(gram).clamp_min(0))


def _quadratic(gram: Tensor) -> Tensor:
    purity = (gram**2).sum()
    return -torch.where(purity == 0, 1, purity).log()


# Functions that return the entropy of a Gram matrix of trace 1, by order.
ORDERS: dict[int, Callable[[Tensor], Tensor]] = {1: _shannon, 2: _quadratic}


def _smaller_gram(x: Tensor) -> Tensor:
    """Return ``x x^T`` or ``x^T x``, whichever is smaller; their nonzero eigenvalues are equal."""
    return gram_matrix(x.mT if len(x) <= x.shape[1] else x)


def _trace_one(gram: Tensor) -> Tensor:
    trace = gram.trace()
    return gram / torch.where(trace == 0, 1, trace)
