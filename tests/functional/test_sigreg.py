"""SIGReg against NumPy's complex exponentials, closed forms, and float64."""

import math

import numpy as np
import pytest
import torch
from numeric import check_against, normal
from numeric import directions as slices
from scipy.integrate import trapezoid

from solo_dimreg.functional import sigreg_loss


def in_numpy(x, directions, knots, t_max):
    t = np.linspace(-t_max, t_max, 2 * knots - 1)
    statistics = []
    for direction in directions.T:
        empirical = np.exp(1j * np.outer(t, x @ direction)).mean(axis=1)
        integrand = np.abs(empirical - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)
        statistics.append(len(x) * trapezoid(integrand, t))
    return np.mean(statistics)


@pytest.mark.parametrize(("knots", "t_max"), [(17, 3.0), (2, 1.0), (9, 5.0)])
def test_it_is_the_epps_pulley_statistic(knots, t_max):
    directions = slices(4, 7)
    check_against(
        lambda x: sigreg_loss(x, directions, knots, t_max),
        lambda x: in_numpy(x, directions.numpy(), knots, t_max),
        1.5 * normal(6, 4) + 0.3,
    )


def test_gradient():
    directions = slices(3, 5)
    x = normal(5, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sigreg_loss(x, directions), (x,))


def test_of_one_point_it_is_an_integral():
    # By integrals of Gaussians: (1 - g)^2 g with g = exp(-t^2 / 2), over all t.
    expected = 12 * math.sqrt(2 * math.pi) * (1 - 2 / math.sqrt(2) + 1 / math.sqrt(3))
    found = sigreg_loss(torch.zeros(12, 3).double(), slices(3, 4), knots=401, t_max=10.0)
    assert float(found) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_float32_is_float64(scale):
    values, gradients = [], []
    for dtype in (torch.float32, torch.float64):
        x = (scale * normal(64, 8)).to(dtype).requires_grad_()
        value = sigreg_loss(x, slices(8, 32, dtype))
        values.append(value.double())
        gradients.append(torch.autograd.grad(value, x)[0].double())
    torch.testing.assert_close(*values, rtol=1e-3 if scale > 1 else 1e-5, atol=0)
    assert (gradients[0] - gradients[1]).norm() < (1e-3 if scale > 1 else 1e-5) * gradients[1].norm()


def test_a_gaussian_has_less_than_what_is_none():
    directions, x = slices(16, 32), normal(256, 16)
    gaussian = sigreg_loss(x, directions)
    for other in (2 * x, 0.5 * x, x + 1, x * (torch.arange(16) < 4), x[:, :1].sign().expand(-1, 16)):
        assert sigreg_loss(other, directions) > 1.5 * gaussian


def test_wrong_arguments_are_refused():
    x = normal(5, 3)
    with pytest.raises(ValueError, match="knots must be an integer >= 2, got 1"):
        sigreg_loss(x, slices(3, 4), knots=1)
    with pytest.raises(ValueError, match="t_max must be a finite number > 0, got 0"):
        sigreg_loss(x, slices(3, 4), t_max=0)
    with pytest.raises(ValueError, match=r"slices must have shape \(3, K\), got \(4, 3\)"):
        sigreg_loss(x, slices(4, 3))
