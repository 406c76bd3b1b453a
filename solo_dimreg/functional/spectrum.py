"""Metrics from the singular values of a feature matrix, which tell how many dimensions it fills."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from solo_dimreg.functional._checks import check_features, check_int
from solo_dimreg.functional._precision import full_precision, matmul, no_autocast
from solo_dimreg.functional.directclr import normalize_rows

# The first and the last rank that the released code of alpha-ReQ fits, both included.
POWER_LAW_RANKS = (4, 100)


@full_precision
def effective_rank(x: Tensor, center: bool = False) -> Tensor:
    """Compute the effective rank of the features [1, def. 1].

    It is the exponential of the entropy of the normalized singular values. It is between 1 and min(B, D), and
    equals the rank if all nonzero singular values are equal. A matrix of zeros has effective rank 1. It can
    be differentiated, and its gradient is finite for singular values that are repeated or 0 too.

    References:
        [1] Roy & Vetterli, The effective rank: a measure of effective dimensionality, EUSIPCO 2007.

    Args:
        x: features, shape (B, D).
        center: subtract the mean of the batch first.

    Returns:
        The effective rank, a scalar.

    Raises:
        ValueError: ``x`` is not of shape (B, D).
    """
    check_features("x", x)
    return entropy(singular_values(subtract_mean(x) if center else x)).exp()


@full_precision
def singular_spectrum(x: Tensor, normalize: bool = False) -> Tensor:
    """Compute the singular values of the covariance matrix of ``x``, in descending order [1, sec. 3].

    The covariance is that of the columns over the rows, centred and divided by B - 1. [1] plots the logarithm
    of these values; its released script scales the rows to length 1 first, as ``normalize=True`` does. The
    values are computed from the singular values of the centred features, which keeps the small ones accurate.
    The D - min(B, D) values that a small batch leaves undetermined are 0.

    References:
        [1] Jing et al., Understanding Dimensional Collapse in Contrastive Self-Supervised Learning, ICLR
            2022.

    Args:
        x: features, shape (B, D).
        normalize: scale the rows to length 1 first.

    Returns:
        The singular values, shape (D,).

    Raises:
        ValueError: ``x`` is not of shape (B, D).
    """
    check_features("x", x)
    centred = subtract_mean(normalize_rows(x) if normalize else x)
    values = singular_values(centred) ** 2 / max(len(x) - 1, 1)
    return torch.cat([values, values.new_zeros(x.shape[1] - len(values))])


@full_precision
def rankme(x: Tensor) -> Tensor:
    """Compute RankMe, the smoothed effective rank of the features without centring [1, eq. 1].

    With the singular values ``s`` of ``x``, it is ``exp(-sum p ln p)`` of ``p = s / sum(s) + 1e-7``.

    References:
        [1] Garrido et al., RankMe: Assessing the downstream performance of pretrained self-supervised
            representations by their rank, ICML 2023.

    Args:
        x: features, shape (B, D).

    Returns:
        RankMe, a scalar from 1 to min(B, D).

    Raises:
        ValueError: ``x`` is not of shape (B, D).
    """
    check_features("x", x)
    return smoothed_rank(singular_values(x))


@full_precision
def alpha_req(x: Tensor) -> Tensor:
    """Compute alpha-ReQ, the exponent of the power law by which the covariance spectrum decays [1].

    The eigenvalues of the covariance are assumed to follow ``lambda_i ~ i^-alpha``. Alpha is the slope of the
    least squares line through the points ``(ln i, -ln lambda_i)`` of the ranks i from 4 to 100, weighted by
    1 / i, as in the authors' released code. The leading eigenvalues follow no power law, and the last ones of
    a sample are far below those of its distribution. [1] finds the best representations near 1.

    References:
        [1] Agrawal et al., alpha-ReQ: Assessing Representation Quality in Self-Supervised Learning by
            measuring eigenspectrum decay, NeurIPS 2022.

    Args:
        x: features, shape (B, D).

    Returns:
        alpha, a scalar; NaN where fewer than five nonzero eigenvalues leave it undefined.

    Raises:
        ValueError: ``x`` is not of shape (B, D).
    """
    check_features("x", x)
    values = singular_values(subtract_mean(x))
    # Values below are the rounding error of x, whose spectrum would be fitted too.
    floor = 8 * torch.finfo(x.dtype).eps * torch.linalg.vector_norm(x, dtype=torch.float64)
    values = values[values > floor]
    return power_law_exponent((values / values[:1]) ** 2)


def power_law_exponent(spectrum: Tensor) -> Tensor:
    """Return the exponent of the power law through positive descending eigenvalues at ``POWER_LAW_RANKS``."""
    first, last = POWER_LAW_RANKS
    logs = spectrum[first - 1 : last].log()
    ranks = torch.arange(first, first + len(logs), device=logs.device, dtype=logs.dtype)
    weights = 1 / ranks / (1 / ranks).sum()
    positions = ranks.log() - (weights * ranks.log()).sum()
    return -(weights * positions * logs).sum() / (weights * positions**2).sum()


@full_precision
def lidar(x: Tensor, samples_per_class: int) -> Tensor:
    """Compute LiDAR, the effective rank of the linear discriminant matrix of views against samples [1].

    Each clean sample is a class, and its q views are the members. With the covariance ``S_b`` of the class
    means and the average covariance within a class ``S_w + 1e-4 I``, the eigenvalues ``lambda`` of ``S_w^-1/2
    S_b S_w^-1/2`` give ``p = lambda / sum(lambda) + 1e-7`` and ``exp(-sum p ln p)``. Covariances divide by
    the number of terms.

    References:
        [1] Thilak et al., LiDAR: Sensing Linear Probing Performance in Joint Embedding SSL Architectures,
            ICLR 2024.

    Args:
        x: features of n samples with q views each, shape (n * q, D), the views of a sample in consecutive
            rows.
        samples_per_class: q, the number of views of each sample, at least 2.

    Returns:
        LiDAR, a scalar from 1 to min(n - 1, D).

    Raises:
        ValueError: q is below 2 or does not divide the number of rows, or there are fewer than two samples.
    """
    check_features("x", x)
    check_int("samples_per_class", samples_per_class, minimum=2)
    if len(x) % samples_per_class or len(x) < 2 * samples_per_class:
        raise ValueError(
            f"x must hold samples_per_class = {samples_per_class} consecutive rows for each of at least two "
            f"samples, got {len(x)} rows."
        )
    # In float64: the square of 1e20 overflows float32, and float32 would lose eps beside large features.
    classes = x.double().view(-1, samples_per_class, x.shape[1])
    means = classes.mean(dim=1)
    deviations = (classes - means.unsqueeze(1)).flatten(0, 1)
    centred = means - means.mean(dim=0)
    if len(deviations) + len(centred) < x.shape[1]:
        # All of it lies in the span of these rows. The basis needs no gradient: to first order, what leaves
        # the span changes neither scatter matrix within it.
        basis = torch.linalg.qr(torch.cat([deviations, centred]).detach().T).Q
        deviations, centred = matmul(deviations, basis), matmul(centred, basis)
    within = inverse_square_root(gram_matrix(deviations) / len(deviations), eps=1e-4)
    values = singular_values(matmul(centred, within)) ** 2
    return smoothed_rank(torch.cat([values, values.new_zeros(x.shape[1] - len(values))])).to(x.dtype)


@full_precision
def inverse_square_root(matrix: Tensor, eps: float) -> Tensor:
    """Return ``(A + eps I)^-1/2`` of symmetric positive semi-definite matrices A, with an exact gradient.

    In the eigenbasis, the gradient of ``U f(lambda) U^T`` is the incoming gradient times the divided
    differences ``(f(a) - f(b)) / (a - b)`` [1, theorem V.3.3, after Daleckii and Krein]. For ``f(a) =
    a^-1/2`` they are ``-1 / (sqrt(a) sqrt(b) (sqrt(a) + sqrt(b)))``, in which nothing is subtracted. So equal
    eigenvalues are no special case, although the gradient of the eigenvectors divides by 0 there.

    References:
        [1] Bhatia, Matrix Analysis, Springer 1997.

    Args:
        matrix: shape (..., g, g).
        eps: added to each eigenvalue, at least 0. With 0, eigenvalues are raised to at least the machine
            epsilon times the largest one, and a matrix of zeros counts as the identity.

    Returns:
        Shape (..., g, g).
    """
    return _InverseSquareRoot.apply(matrix, eps)[0]


class _InverseSquareRoot(torch.autograd.Function):
    @staticmethod
    def forward(matrix: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        return decompose_root(matrix, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, None]:
        with no_autocast(grad.device.type):
            return root_gradient(grad, *ctx.saved_tensors), None


def decompose_root(matrix: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return :func:`inverse_square_root`, the roots of the eigenvalues, and the eigenvectors."""
    nan_or_zero = _nan_or_zero(matrix)  # as for singular_values: NaN instead of an error
    values, vectors = torch.linalg.eigh(matrix.nan_to_num(0, 0, 0))
    # Rounding leaves eigenvalues of 0 slightly negative.
    values = values.clamp_min(0)
    if eps == 0:
        largest = values.amax(dim=-1, keepdim=True)
        least = torch.where(largest > 0, torch.finfo(values.dtype).eps * largest, 1)
        values = torch.maximum(values, least)
    roots = (values + eps).sqrt() + nan_or_zero
    return matmul(vectors / roots.unsqueeze(-2), vectors.mT), roots, vectors


def root_gradient(grad: Tensor, roots: Tensor, vectors: Tensor) -> Tensor:
    """Return the gradient of the matrix for that of its inverse square root; it is symmetric."""
    a, b = roots.unsqueeze(-1), roots.unsqueeze(-2)
    inner = matmul(matmul(vectors.mT, grad + grad.mT), vectors)
    return matmul(matmul(vectors, inner / (-2 * a * b * (a + b))), vectors.mT)


def smoothed_rank(weights: Tensor) -> Tensor:
    """Return ``exp(-sum p ln p)`` of ``p = weights / sum(weights) + 1e-7``, which is RankMe's smoothing."""
    total = weights.sum()
    p = weights / torch.where(total > 0, total, 1) + 1e-7
    return (-(p * p.log()).sum()).exp()


def subtract_mean(x: Tensor) -> Tensor:
    """Centre each column; a column that is constant up to rounding becomes 0, with gradient 0.

    Such a column would otherwise keep the rounding error of its mean, as if the features spread there.
    """
    mean = x.mean(dim=0)
    centred = x - mean
    rounding = 16 * torch.finfo(x.dtype).eps * mean.detach().abs()
    return centred * (centred.detach().abs().amax(dim=0) > rounding)


def entropy(weights: Tensor) -> Tensor:
    """Return the Shannon entropy of non-negative ``weights`` scaled to sum 1, or 0 if all are 0.

    The slope of the entropy at a weight of 0 is infinite. The logarithm is held below the machine epsilon, so
    that the gradient stays finite.
    """
    total = weights.sum()
    p = weights / torch.where(total > 0, total, 1)
    return -(p * p.clamp_min(torch.finfo(p.dtype).eps).log()).sum()


def singular_values(x: Tensor, float64: bool = True) -> Tensor:
    """Return the singular values, descending, shape (min(B, D),).

    They are NaN, with gradient NaN, if ``x`` is not finite. An error would end the training, although the
    gradient scaler of mixed precision skips a step whose features overflowed.

    Up to float32, they are the roots of the eigenvalues of the smaller Gram matrix in float64, whose square
    root of epsilon is below the rounding of ``x``. This takes a fifth of the time of an SVD. Without
    ``float64``, values below 1 % of the largest one are lost in the rounding error of its square.
    """
    if x.dtype == torch.float64:
        nan_or_zero = _nan_or_zero(x)
        return torch.linalg.svdvals(torch.where(nan_or_zero == 0, x, 0)) + (x * nan_or_zero).sum()
    wide = x.double() if float64 else x
    squares = symmetric_eigenvalues(gram_matrix(wide.mT if len(x) < x.shape[1] else wide)).flip(0)
    vanished = squares <= len(squares) * torch.finfo(wide.dtype).eps * squares[:1].detach()
    return torch.where(vanished, 0, torch.where(vanished, 1, squares).sqrt()).to(x.dtype)


def gram_matrix(x: Tensor) -> Tensor:
    """Return ``x^T x`` of (..., B, D), whose gradient takes one product where autograd takes two."""
    return _Gram.apply(x)


class _Gram(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return matmul(x.mT, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        with no_autocast(grad.device.type):
            return matmul(x, grad + grad.mT)


def symmetric_eigenvalues(matrix: Tensor) -> Tensor:
    """Return ``torch.linalg.eigvalsh(matrix)``, or NaN instead of an error if it is not finite."""
    if matrix.requires_grad or torch.compiler.is_compiling():
        return _Eigenvalues.apply(matrix)[0]
    nan_or_zero = _nan_or_zero(matrix)
    return torch.linalg.eigvalsh(matrix.nan_to_num(0, 0, 0)) + nan_or_zero


class _Eigenvalues(torch.autograd.Function):
    """The eigenvalues with their vectors; the product in PyTorch's own gradient may be in TensorFloat32."""

    @staticmethod
    def forward(matrix: Tensor) -> tuple[Tensor, Tensor]:
        nan_or_zero = _nan_or_zero(matrix)
        values, vectors = torch.linalg.eigh(matrix.nan_to_num(0, 0, 0))
        return values + nan_or_zero, vectors

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> Tensor:
        values, vectors = ctx.saved_tensors
        grad = grad + 0 * values  # NaN reaches the gradient of all rows
        with no_autocast(grad.device.type):
            return matmul(vectors * grad.unsqueeze(-2), vectors.mT)


def _nan_or_zero(x: Tensor) -> Tensor:
    """Return NaN if ``x`` is not finite and 0 otherwise, decided on the device without waiting for it."""
    least, most = x.detach().aminmax()  # a tenth of the time of isfinite
    return 0 * least + 0 * most
