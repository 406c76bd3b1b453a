"""Functions that decorrelate the axes of the embeddings: whitening in groups, and penalties."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from solo_dimreg.errors import ConfigError
from solo_dimreg.functional._checks import check_between, check_features, check_int, check_positive
from solo_dimreg.functional._precision import full_precision, matmul, no_autocast
from solo_dimreg.functional.spectrum import decompose_root, gram_matrix, root_gradient, subtract_mean

# Correlations of more axes than these are computed so many rows of the matrix at a time.
STRIP = 4_096
WIDEST_GROUP = 256  # axes of a group that is chosen automatically


def zca_whiten(x: Tensor, num_groups: int = 1, eps: float = 1e-5, float64: bool = True) -> Tensor:
    """Centre the batch and make the covariance of each group of axes the identity, by ZCA [1; 2].

    Consecutive axes form a group. Each group becomes ``(x - mean) U diag(lambda + eps)^-1/2 U^T``, with the
    eigenvalues and eigenvectors of its covariance, which divides by B as batch normalization does. With as
    many groups as axes, this *is* batch normalization. The gradient is exact for equal eigenvalues too, see
    ``solo_dimreg.functional.spectrum.inverse_square_root``.

    References:
        [1] Huang et al., Decorrelated Batch Normalization, CVPR 2018.
        [2] Hua et al., On Feature Decorrelation in Self-Supervised Learning, ICCV 2021.

    Args:
        x: embeddings, shape (B, D).
        num_groups: number of groups, a divisor of D whose groups have fewer than B axes.
        eps: added to the eigenvalues, at least 0. It must be small against them, or the covariance stays
            below the identity. With 0, as in the released code of [2], eigenvalues below the rounding error
            are set to the rounding error.
        float64: compute covariance and inverse square root in float64. Without it, eigenvalues below 1e-6 of
            the largest one are lost in rounding errors.

    Returns:
        The whitened embeddings, shape (B, D).

    Raises:
        ValueError: the groups do not divide D, the batch is too small for them, or ``eps`` is below 0.
    """
    check_between("eps", eps, 0)
    return whiten_batch(x, num_groups, eps, float64)[0]


@full_precision
def whiten_batch(
    x: Tensor, num_groups: int, eps: float, float64: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the batch as :func:`zca_whiten` does, and its statistics as :func:`whitening_statistics` does.

    The statistics have no gradient.
    """
    _check_batch(x, num_groups)
    whitened, mean, covariance, *_ = _Whitening.apply(x, num_groups, eps, float64)
    return whitened, mean, covariance.view(num_groups, -1, covariance.shape[-1])


@full_precision
def whitening_statistics(x: Tensor, num_groups: int, float64: bool = True) -> tuple[Tensor, Tensor]:
    """Return the mean, (D,), and the covariances with which :func:`zca_whiten` whitens a batch (B, D).

    The covariance within each of the G groups, (G, D / G, D / G), is divided by B. It is in float64 unless
    ``float64`` is false.
    """
    _check_batch(x, num_groups)
    mean = x.mean(dim=0)
    covariance = _covariance(_grouped(x - mean, num_groups), float64)
    return mean, covariance.view(num_groups, -1, covariance.shape[-1])


@full_precision
def whiten_with(x: Tensor, mean: Tensor, whitening: Tensor) -> Tensor:
    """Whiten ``x`` with the inverse square roots of covariances, (G, D / G, D / G), of another batch."""
    groups = (x - mean).view(len(x), len(whitening), -1).transpose(0, 1)
    return _ungrouped(matmul(groups, whitening.to(x.dtype)))


class _Whitening(torch.autograd.Function):
    """The whitening and its gradient in one step; autograd would run four functions of ours for it."""

    @staticmethod
    def forward(x: Tensor, num_groups: int, eps: float, float64: bool) -> tuple[Tensor, ...]:
        mean = x.mean(dim=0)
        centred = _grouped(x - mean, num_groups)
        covariance = _covariance(centred, float64)
        root, roots, vectors = decompose_root(covariance, eps)
        whitened = _ungrouped(matmul(centred, root.to(x.dtype)))
        return whitened, mean, covariance, centred, root, roots, vectors

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)  # zeros for the others would take time
        ctx.save_for_backward(*output[3:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, None, None, None]:
        if grad is None:
            return None, None, None, None
        centred, root, roots, vectors = ctx.saved_tensors
        grad = _grouped(grad, root.shape[0] if root.dim() == 3 else 1)
        with no_autocast(grad.device.type):
            of_covariance = root_gradient(matmul(centred.mT, grad).to(root.dtype), roots, vectors)
            through_root = matmul(centred.to(root.dtype), of_covariance * (2 / centred.shape[-2]))
            # In place, since a new tensor of this size takes as long as a product.
            grad = matmul(grad, root.to(grad.dtype)).add_(through_root.to(grad.dtype))
        return _ungrouped(grad.sub_(grad.mean(dim=-2, keepdim=True))), None, None, None


def _grouped(x: Tensor, num_groups: int) -> Tensor:
    """Return (B, D) as (G, B, D / G), or as it is for one group: a plain product takes less time."""
    return x.view(len(x), num_groups, -1).transpose(0, 1) if num_groups > 1 else x


def _ungrouped(x: Tensor) -> Tensor:
    return x.transpose(0, 1).flatten(1) if x.dim() == 3 else x


def _check_batch(x: Tensor, num_groups: int) -> None:
    check_features("x", x)
    b, d = x.shape
    check_groups(d, num_groups)
    if b <= d // num_groups:
        raise ValueError(
            f"whitening groups of {d // num_groups} axes needs more than {d // num_groups} samples, got {b}: "
            f"raise the batch size, or num_groups from {num_groups} to a larger divisor of {d}."
        )


def _covariance(groups: Tensor, float64: bool) -> Tensor:
    """Return the covariance of each centred group; float64 holds the square of every float32."""
    wide = groups.double() if float64 else groups
    return matmul(wide.mT, wide).div_(wide.shape[-2])


@full_precision
def off_diagonal_correlation(x: Tensor) -> Tensor:
    """Compute the mean absolute correlation between two different axes.

    [1] measures collapse by it. An axis that is constant over the batch counts as uncorrelated with all
    others.

    References:
        [1] Hua et al., On Feature Decorrelation in Self-Supervised Learning, ICCV 2021.

    Args:
        x: features, shape (B, D).

    Returns:
        The mean, a scalar from 0 to 1; 0 if D is 1.

    Raises:
        ValueError: ``x`` is not of shape (B, D).
    """
    check_features("x", x)
    unit = _unit_axes(x)
    d = unit.shape[1]
    if d <= STRIP:
        return mean_off_diagonal(gram_matrix(unit))
    strips = [matmul(strip.T, unit).abs().sum() for strip in unit.split(STRIP, dim=1)]
    return (torch.stack(strips).sum() - unit.square().sum()) / (d * (d - 1))


def mean_off_diagonal(matrix: Tensor) -> Tensor:
    """Return the mean absolute entry outside the diagonal of a (D, D) matrix, or 0 if D is 1."""
    d = len(matrix)
    return _off_diagonal(matrix).abs().sum() / max(d * (d - 1), 1)


@full_precision
def decorrelation_loss(
    x: Tensor, correlation_weight: float = 1.0, variance_weight: float = 1.0, target_std: float = 1.0
) -> Tensor:
    """Compute a penalty on correlated axes, and one on axes that spread less than ``target_std``.

    The first is the sum of the squared off-diagonal correlations, divided by D. It follows [1, eq. 1], but
    correlates one view with itself. The second is :func:`variance_hinge`. Correlations do not see the scale
    of an axis; the hinge keeps it from vanishing.

    References:
        [1] Zbontar et al., Barlow Twins: Self-Supervised Learning via Redundancy Reduction, ICML 2021.

    Args:
        x: features, shape (B, D).
        correlation_weight: weight of the first penalty, at least 0.
        variance_weight: weight of the second penalty, at least 0.
        target_std: standard deviation from which an axis is not penalized, above 0.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: an option is out of range, or ``x`` is not of shape (B, D).
    """
    check_features("x", x)
    check_decorrelation_options(correlation_weight, variance_weight, target_std)
    correlation = (_off_diagonal(gram_matrix(_unit_axes(x))) ** 2).sum() / x.shape[1]
    return correlation_weight * correlation + variance_weight * variance_hinge(x, target_std)


@full_precision
def variance_hinge(x: Tensor, target_std: float = 1.0, eps: float = 1e-4) -> Tensor:
    """Compute the mean over the axes of ``max(0, target_std - sqrt(var + eps))`` [1, eq. 1 and 2].

    References:
        [1] Bardes et al., VICReg: Variance-Invariance-Covariance Regularization, ICLR 2022.

    Args:
        x: embeddings, shape (B, D).
        target_std: standard deviation from which an axis is not penalized, above 0.
        eps: added to the variance, which divides by B - 1; above 0.

    Returns:
        The penalty, a scalar.

    Raises:
        ValueError: an option is not above 0, or ``x`` is not of shape (B, D).
    """
    check_features("x", x)
    check_positive("target_std", target_std)
    check_positive("eps", eps)
    variance = ((x - x.mean(dim=0)) ** 2).sum(dim=0) / max(len(x) - 1, 1)
    return F.relu(target_std - (variance + eps).sqrt()).mean()


@full_precision
def covariance_penalty(x: Tensor) -> Tensor:
    """Compute the sum of the squared off-diagonal covariances, divided by D [1, eq. 3 and 4].

    References:
        [1] Bardes et al., VICReg: Variance-Invariance-Covariance Regularization, ICLR 2022.

    Args:
        x: embeddings, shape (B, D); the covariance divides by B - 1.

    Returns:
        The penalty, a scalar.

    Raises:
        ValueError: ``x`` is not of shape (B, D).
    """
    check_features("x", x)
    centred = x - x.mean(dim=0)
    covariance = gram_matrix(centred) / max(len(x) - 1, 1)
    return (_off_diagonal(covariance) ** 2).sum() / x.shape[1]


def check_groups(num_features: int, num_groups: Any) -> int:
    """Return the number of groups as an int; raise if it does not divide the number of axes."""
    check_int("num_groups", num_groups, minimum=1)
    if num_features % num_groups:
        raise ConfigError(f"num_groups must divide the {num_features} axes, got {num_groups}.")
    return int(num_groups)


def automatic_groups(num_features: int, samples: int) -> int:
    """Return the fewest groups, a divisor of D, whose groups have at most B / 2 and at most 256 axes.

    The released code of Hua et al. (ICCV 2021) takes ``ceil(2 D / B)`` groups, whether that divides D or not,
    so that each axis of a group has two samples. Decomposing groups of g axes takes a time of D g^2: at a
    batch of 4,096, one group of 2,048 axes takes 64 times as long as eight of 256.
    """
    axes = min(samples / 2, WIDEST_GROUP)
    least = min(math.ceil(num_features / axes), num_features)
    return next(groups for groups in range(least, num_features + 1) if num_features % groups == 0)


def check_decorrelation_options(correlation_weight: float, variance_weight: float, target_std: float) -> None:
    """Raise if :func:`decorrelation_loss` cannot use an option, before there is any data."""
    check_between("correlation_weight", correlation_weight, 0)
    check_between("variance_weight", variance_weight, 0)
    check_positive("target_std", target_std)


def _unit_axes(x: Tensor) -> Tensor:
    """Return the centred axes (B, D), each of length 1; a constant one is 0."""
    centred = subtract_mean(x)
    # In float64, squares neither overflow nor vanish.
    length = torch.linalg.vector_norm(centred, dim=0, dtype=torch.float64).to(x.dtype)
    return centred / torch.where(length == 0, 1, length)


def _off_diagonal(matrix: Tensor) -> Tensor:
    return matrix.masked_fill(torch.eye(len(matrix), dtype=torch.bool, device=matrix.device), 0)
