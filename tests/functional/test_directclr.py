"""InfoNCE and DirectCLR against a naive NumPy version."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from solo_dimreg.functional import directclr_loss, info_nce_loss
from solo_dimreg.functional.directclr import inner_product_info_nce_loss


def pair(b=12, d=7, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, b, d, generator=generator, dtype=dtype).unbind()


def naive_info_nce(z1, z2, temperature):
    return naive_inner_product_info_nce(
        *(z / np.linalg.norm(z, axis=1, keepdims=True) for z in (z1, z2)), temperature
    )


def naive_inner_product_info_nce(z1, z2, temperature):
    losses = []
    for a, b in ((z1, z2), (z2, z1)):
        for i in range(len(a)):
            similarities = np.array([a[i] @ b[j] for j in range(len(b))]) / temperature
            losses.append(logsumexp(similarities) - similarities[i])
    return np.mean(losses)


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_info_nce_against_numpy(temperature):
    z1, z2 = pair()
    expected = naive_info_nce(z1.numpy(), z2.numpy(), temperature)
    assert info_nce_loss(z1, z2, temperature).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_inner_product_info_nce_against_numpy(temperature):
    z1, z2 = pair()
    expected = naive_inner_product_info_nce(z1.numpy(), z2.numpy(), temperature)
    assert inner_product_info_nce_loss(z1, z2, temperature).item() == pytest.approx(expected, rel=1e-12)


def test_info_nce_is_symmetric():
    z1, z2 = pair()
    torch.testing.assert_close(info_nce_loss(z1, z2), info_nce_loss(z2, z1))


def test_info_nce_of_constant_embeddings_is_the_logarithm_of_the_batch():
    assert info_nce_loss(torch.ones(16, 4), torch.ones(16, 4)).item() == pytest.approx(np.log(16), rel=1e-6)


def test_directclr_sees_the_first_entries_only():
    r1, r2 = (r.requires_grad_() for r in pair())
    loss = directclr_loss(r1, r2, dim=3)
    torch.testing.assert_close(loss, info_nce_loss(r1[:, :3], r2[:, :3]), rtol=0, atol=0)
    loss.backward()
    assert (r1.grad[:, 3:] == 0).all() and (r1.grad[:, :3] != 0).any()


def test_gradient():
    inputs = tuple(r.requires_grad_() for r in pair(6, 4))
    assert torch.autograd.gradcheck(lambda a, b: directclr_loss(a, b, dim=3, temperature=0.5), inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 8}, "dim must be an integer from 1 to the width of r1, 7, got 8"),
        ({"dim": 0}, "dim must be an integer >= 1, got 0"),
        ({"dim": 3.0}, "got 3.0"),
        ({"dim": 3, "temperature": 0}, "temperature must be a finite number > 0, got 0"),
        ({"dim": 3, "temperature": float("nan")}, "got nan"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        directclr_loss(*pair(), **options)


def test_views_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(12, 7\) and \(11, 7\)"):
        info_nce_loss(pair()[0], pair()[1][:-1])
