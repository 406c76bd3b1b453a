"""SIGReg: makes every projection of the embeddings a standard Gaussian, by its characteristic function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from solo_dimreg.functional._checks import check_features, check_int, check_positive, check_slices
from solo_dimreg.functional._precision import full_precision, matmul


@full_precision
def sigreg_loss(x: Tensor, slices: Tensor, knots: int = 17, t_max: float = 3.0) -> Tensor:
    """Compute SIGReg, sketched isotropic Gaussian regularization [1, alg. 1].

    Each projection ``p = x @ slice`` has the empirical characteristic function ``phi(t) = mean_i exp(i t
    p_i)``. Its Epps-Pulley statistic is ``B * integral of |phi(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt`` from
    -t_max to t_max, by the trapezoidal rule. The loss is the mean over the slices. With many samples it is
    smallest if every slice is a standard Gaussian, as far as the knots can see. As the features collapse onto
    a point, the part of the gradient that would spread them vanishes with their spread; :func:`visreg_loss`
    differs in this.

    The defaults of knots and range are from the released code, which uses that the integrand is even;
    algorithm 1 of the paper has 17 knots from -5 to 5.

    References:
        [1] Balestriero & LeCun, LeJEPA: Provable and Scalable Self-Supervised Learning Without the
            Heuristics, arXiv 2511.08544, 2025.

    Args:
        x: embeddings, shape (B, D).
        slices: unit vectors as columns, shape (D, K); [1] draws 1,024 anew at every step.
        knots: number of values of t from 0 to ``t_max``, at least 2.
        t_max: the largest t, above 0.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: an option is out of range, or the shapes do not fit.
    """
    check_features("x", x)
    check_slices(slices, x)
    check_sigreg_options(knots, t_max)
    return epps_pulley(characteristic_function(matmul(x, slices), knots, t_max), len(x), t_max)


def characteristic_function(projections: Tensor, knots: int, t_max: float) -> Tensor:
    """Return the means of ``cos(t p)`` and ``sin(t p)`` over the rows of ``p`` (B, K), at all t but 0.

    The shape is (2, knots - 1, K).
    """
    return _CharacteristicFunction.apply(projections, t_max / (knots - 1), knots - 1)


def epps_pulley(characteristic: Tensor, samples: int, t_max: float) -> Tensor:
    """Return the Epps-Pulley statistic, averaged over the slices, from :func:`characteristic_function`."""
    count = characteristic.shape[1]
    knots = torch.arange(1, count + 1, dtype=characteristic.dtype, device=characteristic.device)
    t = knots * (t_max / count)
    gaussian = (-(t**2) / 2).exp()
    # The integrand is even and 0 at t = 0: this is twice the trapezoids from 0 on. The last knot counts half.
    ends = torch.where(knots == count, 0.5, 1.0)
    weights = 2 * t_max / count * gaussian * ends
    errors = (characteristic[0] - gaussian[:, None]) ** 2 + characteristic[1] ** 2
    return samples * matmul(weights[None], errors).mean()


def check_sigreg_options(knots: int, t_max: float) -> None:
    """Raise if :func:`sigreg_loss` cannot use an option, before there is any data."""
    check_int("knots", knots, minimum=2)
    check_positive("t_max", t_max)


class _CharacteristicFunction(torch.autograd.Function):
    """:func:`characteristic_function`, computed knot by knot in both passes.

    No tensor of shape (B, K, knots) is held, which would take 34 times the memory of ``p``. ``exp(i t p)``
    turns by the same angle from one knot to the next, which takes two products instead of a sine and a
    cosine.
    """

    @staticmethod
    def forward(projections: Tensor, step: float, count: int) -> Tensor:
        first = (projections * step).cos(), (projections * step).sin()
        cosine, sine = first
        means = []
        for knot in range(count):
            if knot:
                cosine, sine = _turn(cosine, sine, first)
            means.append(torch.stack([cosine.mean(dim=0), sine.mean(dim=0)]))
        return torch.stack(means, dim=1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, int], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.step, ctx.count = inputs[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (projections,) = ctx.saved_tensors
        first = (projections * ctx.step).cos(), (projections * ctx.step).sin()
        cosine, sine = first
        total = torch.zeros_like(projections)
        for knot in range(ctx.count):
            if knot:
                cosine, sine = _turn(cosine, sine, first)
            slope = (knot + 1) * ctx.step / len(projections)
            total = total + cosine * (slope * grad[1, knot]) - sine * (slope * grad[0, knot])
        return total, None, None


def _turn(cosine: Tensor, sine: Tensor, by: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the cosine and sine of the sum of two angles."""
    return (
        torch.addcmul(cosine * by[0], sine, by[1], value=-1),
        torch.addcmul(sine * by[0], cosine, by[1]),
    )
