"""The minimum spanning tree against Prim's algorithm in NumPy, and T-REG on its regular simplex."""

import numpy as np
import pytest
import torch
from numeric import check_against, normal

from solo_dimreg.functional import t_reg_loss
from solo_dimreg.functional.t_regs import spanning_tree


def prim(x):
    """The length of the minimum spanning tree."""
    nearest, length = np.linalg.norm(x - x[0], axis=1), 0.0
    nearest[0], joined = np.inf, np.zeros(len(x), dtype=bool)
    joined[0] = True
    for _ in range(len(x) - 1):
        new = int(np.argmin(np.where(joined, np.inf, nearest)))
        length, joined[new] = length + nearest[new], True
        nearest = np.minimum(nearest, np.linalg.norm(x - x[new], axis=1))
    return length


def in_numpy(x, weight):
    return -prim(x) / len(x) + weight * np.mean((np.linalg.norm(x, axis=1) - 1) ** 2)


@pytest.mark.parametrize("weight", [0.0, 0.004, 2.0])
def test_it_is_the_length_of_the_tree_and_the_pull_to_the_sphere(weight):
    check_against(lambda x: t_reg_loss(x, weight), lambda x: in_numpy(x, weight), normal(9, 3))


@pytest.mark.parametrize("b", [1, 2, 3, 50, 200])
def test_the_tree_is_minimal_and_joins_all(b):
    x = normal(b, 5, dtype=torch.float32)
    x[b // 2 :] = x[b // 2 :].round()  # with duplicates and ties
    edges = spanning_tree(x)
    assert edges.shape == (2, b - 1)
    length = torch.linalg.vector_norm(x[edges[0]] - x[edges[1]], dim=1).sum()
    assert float(length) == pytest.approx(prim(x.double().numpy()), rel=1e-5)
    group = list(range(b))
    for i, j in edges.T.tolist():
        group = [group[i] if g == group[j] else g for g in group]
    assert len(set(group)) == 1


def test_duplicates_are_joined_by_edges_of_length_zero():
    # SciPy takes a distance of 0 for no edge, and would join both duplicates to the third point.
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).requires_grad_()
    loss = t_reg_loss(x, 0.0)
    assert loss.item() == pytest.approx(-(2**0.5) / 3)
    assert torch.isfinite(torch.autograd.grad(loss, x)[0]).all()


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_tree_is_the_same_at_every_scale(scale):
    x = normal(40, 3, dtype=torch.float32)
    assert torch.equal(spanning_tree(scale * x), spanning_tree(x))


def test_near_duplicates_far_from_the_origin_are_told_apart():
    x = 1000 + 1e-3 * normal(40, 3, dtype=torch.float32)
    assert float(-t_reg_loss(x, 0.0) * 40) == pytest.approx(prim(x.double().numpy()), rel=1e-4)


def test_a_regular_simplex_is_longest():
    # Theorem 4.1 of the paper: of n <= d + 1 points in the unit ball; edges of sqrt(2 n / (n - 1)).
    simplex = torch.eye(6).double() - 1 / 6
    simplex = simplex / simplex.norm(dim=1, keepdim=True)
    assert t_reg_loss(simplex, 1.0).item() == pytest.approx(-5 / 6 * (12 / 5) ** 0.5)
    for seed in range(5):
        other = torch.nn.functional.normalize(normal(6, 6, seed=seed), dim=1)
        assert t_reg_loss(other, 1.0) > t_reg_loss(simplex, 1.0)


def test_what_is_not_finite_stays_so():
    x = normal(10, 3, dtype=torch.float32)
    x[4, 1] = torch.inf
    assert not torch.isfinite(t_reg_loss(x, 0.0))


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match="sphere_weight must be a finite number >= 0, got -1"):
        t_reg_loss(normal(5, 3), -1)
