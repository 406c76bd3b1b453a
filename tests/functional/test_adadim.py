"""AdaDim's losses against NumPy and against whichever solo-learn is installed."""

import inspect

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from solo_dimreg.functional import adadim_loss, ntxent_loss, vicreg_loss


def pair(b=12, d=7, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, b, d, generator=generator, dtype=dtype).unbind()


@pytest.fixture
def solo_losses():
    return pytest.importorskip("solo.losses", exc_type=ImportError)


@pytest.mark.parametrize("temperature", [0.1, 0.2, 0.5])
def test_ntxent_is_that_of_solo_learn(solo_losses, temperature):
    z1, z2 = pair(dtype=torch.float32)
    theirs = solo_losses.simclr_loss_func
    if "indexes" in inspect.signature(theirs).parameters:  # solo-learn from 1.0.3 on
        expected = theirs(torch.cat([z1, z2]), torch.arange(12).repeat(2), temperature)
    else:
        expected = theirs(z1, z2, temperature)
    torch.testing.assert_close(ntxent_loss(z1, z2, temperature), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_vicreg_is_that_of_solo_learn(solo_losses, weights):
    z1, z2 = pair(dtype=torch.float32)
    z1, z2 = z1 * torch.linspace(0.1, 2, 7), z2 * torch.linspace(2, 0.1, 7)
    expected = solo_losses.vicreg_loss_func(z1, z2, *weights)
    torch.testing.assert_close(vicreg_loss(z1, z2, *weights), expected, rtol=1e-6, atol=1e-6)


def test_ntxent_against_numpy():
    z1, z2 = pair()
    z = np.concatenate([z1.numpy(), z2.numpy()])
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    losses = []
    for i in range(24):
        others = np.array([z[i] @ z[j] for j in range(24) if j != i]) / 0.2
        losses.append(logsumexp(others) - z[i] @ z[(i + 12) % 24] / 0.2)
    assert ntxent_loss(z1, z2, 0.2).item() == pytest.approx(np.mean(losses), rel=1e-12)


def test_vicreg_against_numpy():
    z1, z2 = (0.7 * z for z in pair())
    expected = 25 * np.mean((z1.numpy() - z2.numpy()) ** 2)
    for z in (z1.numpy(), z2.numpy()):
        covariance = np.cov(z, rowvar=False)
        expected += 25 * np.maximum(0, 1 - np.sqrt(np.diag(covariance) + 1e-4)).mean()
        expected += (covariance[~np.eye(7, dtype=bool)] ** 2).sum() / 7
    assert vicreg_loss(z1, z2).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("function", [ntxent_loss, vicreg_loss])
def test_gradients(function):
    inputs = tuple((0.5 * z).requires_grad_() for z in pair(5, 3))
    assert torch.autograd.gradcheck(function, inputs)


def test_the_combination():
    loss = adadim_loss(torch.tensor(2.0), torch.tensor(10.0), torch.tensor(3.0), alpha=0.25, beta=0.1)
    assert loss.item() == pytest.approx(0.25 * 2 + 0.75 * 10 + 0.1 * 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z1, z2: ntxent_loss(z1, z2, 0.0), "temperature must be a finite number > 0, got 0.0"),
        (lambda z1, z2: vicreg_loss(z1, z2, cov=-1), "cov must be a finite number >= 0, got -1"),
        (lambda z1, z2: vicreg_loss(z1, z2[:-1]), r"\(12, 7\) and \(11, 7\)"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(*pair())
