"""TwoNN and the dimension of the spanning tree against shapes of known dimension and other programs."""

import math
import warnings

import numpy as np
import pytest
import skdim
import torch
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import pdist, squareform
from support import most_slow

from solo_dimreg.functional import koleo_loss, mean_share, mst_dimension, nesum, two_nn
from solo_dimreg.functional.dimension import DRAWS, SIZES, _tree_length

WIDTH, POINTS = 24, 1000


def frame(rows, seed=0):
    """Orthonormal rows: an isometry into ``WIDTH`` dimensions."""
    square = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.linalg.qr(square)[0][:rows]


def cube(dimension, points=POINTS):
    generator = torch.Generator().manual_seed(dimension)
    return torch.rand(points, dimension, generator=generator, dtype=torch.float64) @ frame(dimension) + 3


def sphere(dimension, points=POINTS):
    generator = torch.Generator().manual_seed(10 + dimension)
    normal = torch.randn(points, dimension + 1, generator=generator, dtype=torch.float64)
    return normal / normal.norm(dim=1, keepdim=True) @ frame(dimension + 1)


def plane(dimension, points=POINTS):
    """A flat piece with sides of 1 to 3."""
    generator = torch.Generator().manual_seed(20 + dimension)
    flat = torch.rand(points, dimension, generator=generator, dtype=torch.float64)
    return flat * torch.linspace(1, 3, dimension) @ frame(dimension, 1)


# Relative: three standard errors of TwoNN's line on 1,000 points. At their edges points have too few
# neighbours, the more the larger d, which takes as much from the tree's 5.
TOLERANCE = 0.15


@pytest.mark.parametrize("dimension", most_slow([1, 2, 5], keep=[2]))
@pytest.mark.parametrize("shape", [cube, sphere, plane])
@pytest.mark.parametrize("estimate", [two_nn, mst_dimension])
def test_the_dimension_of_known_shapes(estimate, shape, dimension):
    found = estimate(shape(dimension).float()).item()
    assert found == pytest.approx(dimension, rel=TOLERANCE)


@pytest.mark.parametrize("x", [cube(1, 200), cube(3), sphere(2), plane(8, 333)])
def test_two_nn_is_that_of_scikit_dimension(x):
    expected = skdim.id.TwoNN().fit(x.numpy()).dimension_
    assert two_nn(x).item() == pytest.approx(expected, rel=1e-6)


def test_the_tree_is_that_of_scipy():
    """With the same choices of points, and the slope of NumPy's line."""
    x = cube(2, 64)
    generator = torch.Generator().manual_seed(0)
    points = torch.unique(x, dim=0)[torch.randperm(64, generator=generator)].numpy()
    counts = np.round(np.geomspace(4, 64, SIZES)).astype(int)
    means = []
    for count in counts:
        lengths = []
        for _ in range(DRAWS):
            chosen = torch.randperm(64, generator=generator)[:count].numpy()
            lengths.append(minimum_spanning_tree(squareform(pdist(points[chosen]))).sum())
        means.append(np.mean(lengths))
    slope = np.polyfit(np.log(counts), np.log(means), 1)[0]
    assert mst_dimension(x).item() == pytest.approx(1 / (1 - slope), rel=1e-5)


@pytest.mark.parametrize("estimate", [two_nn, mst_dimension])
def test_exact_duplicates_change_nothing(estimate):
    """A distance of 0 is no ratio, and to SciPy's tree no edge."""
    x = sphere(2, 400).float()
    alone = estimate(x)
    assert 1.8 < alone < 2.2
    for repeated in (torch.cat([x, x]), torch.cat([x, x[:7].repeat(50, 1)]), x.repeat_interleave(3, dim=0)):
        torch.testing.assert_close(estimate(repeated), alone)


def test_duplicates_up_to_rounding_change_nothing() -> None:
    """As of one image at two places of a batch, or by two kernels."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, 6, generator=generator)
    many = x[torch.randint(600, (200,), generator=generator)]
    near = many * (1 + 2e-7 * torch.randn(many.shape, generator=generator))
    found = two_nn(torch.cat([x, near, near[:50] * (1 + 1.2e-7)]))
    assert float(found) == pytest.approx(float(two_nn(x)), rel=1e-3)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_of_features_that_are_not_finite_nothing_is_said(bad: float) -> None:
    x = torch.randn(100, 6, generator=torch.Generator().manual_seed(0))
    x[3, 2] = bad
    assert two_nn(x).isnan() and mst_dimension(x).isnan()
    assert mean_share(x).isnan() and nesum(x).isnan() and koleo_loss(x).isnan()


def test_scikit_dimension_is_misled_by_them():
    """Show what the test above guards against: duplicates are as far apart as rounding puts them."""
    x = sphere(2, 400)
    repeated = torch.cat([x, x[:100]]).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert skdim.id.TwoNN().fit(repeated).dimension_ < 0.7 * two_nn(x).item()


@pytest.mark.parametrize("estimate", [two_nn, mst_dimension])
@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_the_scale_does_not_matter(estimate, scale):
    x = cube(2, 300).float()
    torch.testing.assert_close(estimate(scale * x), estimate(x), rtol=1e-3, atol=0)


@pytest.mark.parametrize("estimate", [two_nn, mst_dimension])
@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(50, 4),
        torch.ones(1, 3),
        torch.eye(2),
        torch.ones(64, 3) * torch.tensor([[1.0], [2.0]] * 32),
    ],
)
def test_too_few_distinct_points_say_nothing(estimate, x):
    assert math.isnan(estimate(x))


def test_of_many_points_a_fixed_choice_is_taken():
    x = plane(2, 300)
    some = mst_dimension(x, max_points=128)
    assert some == mst_dimension(x, max_points=128) != mst_dimension(x)
    with pytest.raises(ValueError, match="max_points must be an integer >= 32, got 31"):
        mst_dimension(x, max_points=31)
    with pytest.raises(ValueError, match=r"x must have shape \(B, D\)"):
        two_nn(x[0])


@pytest.mark.parametrize("estimate", [two_nn, mst_dimension])
def test_no_random_number_is_drawn(estimate):
    before = torch.get_rng_state()
    estimate(cube(2, 100).half())
    assert torch.equal(before, torch.get_rng_state())


def test_the_tree_joins_points_that_are_nearly_equal() -> None:
    """SciPy drops the entries of a dense matrix below 1e-8, and joins such points by a longer way."""
    points = torch.tensor([[0.0], [1e-9], [1.0]], dtype=torch.float64)
    length = _tree_length(torch.cdist(points, points), 3, torch.Generator().manual_seed(0))
    assert length == pytest.approx(1, abs=1e-7)
