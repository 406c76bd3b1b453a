"""KoLeo against SciPy's nearest neighbours."""

import numpy as np
import pytest
import torch
from numeric import check_against, normal
from scipy.spatial import KDTree

from solo_dimreg.functional import koleo_loss, neighbours


def in_scipy(x):
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    distances, _ = KDTree(unit).query(unit, k=2)
    return -np.log(distances[:, 1] + 1e-8).mean()


@pytest.mark.parametrize("shape", [(2, 3), (9, 4), (30, 2)])
def test_it_is_the_logarithm_of_the_distance_to_the_nearest(shape):
    check_against(koleo_loss, in_scipy, normal(*shape))


def test_gradient():
    assert torch.autograd.gradcheck(koleo_loss, (normal(8, 3).requires_grad_(),))


def test_rows_that_coincide_up_to_rounding_do_not_part():
    x = normal(3, 5, dtype=torch.float32)
    x = torch.cat([x, 3 * x[:1]]).requires_grad_()
    gradient = torch.autograd.grad(koleo_loss(x), x)[0]
    assert gradient[[0, 3]].abs().max() < 1 and gradient[1:3].abs().min() > 0


def test_one_row_has_no_neighbour():
    x = normal(1, 3).requires_grad_()
    loss = koleo_loss(x)
    assert loss.item() == 0 and torch.autograd.grad(loss, x)[0].abs().max() == 0


@pytest.mark.parametrize("for_cuda", [False, True])
@pytest.mark.parametrize("groups", [1, 5])
@pytest.mark.parametrize("spread", [1, 1e-2, 1e-3])
def test_the_gradient_of_features_around_common_means_is_that_of_float64(
    spread, groups, for_cuda, monkeypatch
):
    monkeypatch.setattr(neighbours, "SHAPED_FOR_CUDA", for_cuda)
    means = normal(groups, 64).repeat_interleave(200 // groups, dim=0)
    rounded = (means + spread * normal(200, 8, seed=1) @ normal(8, 64, seed=2)).float()
    results = []
    for x in (rounded, rounded.double()):
        x = x.clone().requires_grad_()
        results.append(torch.autograd.grad(koleo_loss(x), x)[0])
    assert (results[0] - results[1]).norm() < 1e-3 * results[1].norm()
