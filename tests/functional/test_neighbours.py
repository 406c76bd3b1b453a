"""The fast search and its gradient against float64 differences of all pairs."""

import pytest
import torch
from numeric import normal
from torch.testing._internal.two_tensor import TwoTensor

from solo_dimreg.functional import ldreg_loss, local_intrinsic_dimensionality, neighbours
from solo_dimreg.functional.neighbours import nearest_neighbours

K = 16


def clusters(radius, size=40):
    """Three clusters of more points than there are candidates: no product tells those of one apart."""
    return (normal(3, 1, 24) + radius * normal(3, size, 24, seed=1)).flatten(0, 1)


POINTS = {
    "normal": normal(300, 40),
    "few dimensions": normal(300, 3) @ normal(3, 40, seed=1),
    "offset": 1e4 + normal(300, 40),
    "near-duplicates": torch.cat([normal(150, 40), normal(150, 40) + 1e-3 * normal(150, 40, seed=1)]),
    "tight clusters": clusters(1e-4),
    "very tight clusters": clusters(1e-6),
    "loose clusters": clusters(0.1),
    "an outlier": torch.cat([normal(299, 40), 1e5 * normal(1, 40, seed=1)]),
    "huge": 1e20 * normal(300, 40),
    "tiny": 1e-30 * normal(300, 40),
    "subnormal": 1e-40 * normal(300, 40).round(decimals=2),
    "non-negative": normal(300, 40).relu(),
}


def truth(x, reference, own):
    """All distances, ascending, in float64."""
    distances = (x[:, None] - reference).pow(2).sum(dim=2).sqrt()
    if own is not None:
        distances[torch.arange(len(x)), own] = torch.inf
    return distances.sort(dim=1).values[:, :K]


@pytest.fixture(params=["CPU", "device"])
def shape(request, monkeypatch):
    monkeypatch.setattr(neighbours, "SHAPED_FOR_CUDA", request.param == "device")


@pytest.mark.parametrize("setting", ["own", "others", "part"])
@pytest.mark.parametrize("name", POINTS)
@pytest.mark.usefixtures("shape")
def test_distances_are_exact(name, setting):
    x = POINTS[name].float()
    queries, own = {
        "own": (x, torch.arange(len(x))),
        "others": (x.flip(1), None),
        "part": (x[40:70], torch.arange(40, 70)),
    }[setting]
    distances, neighbours = nearest_neighbours(queries, x, K, own)
    scale = x.abs().max().double()
    expected = truth(queries.double() / scale, x.double() / scale, own)
    # What rounding of a difference of float32 numbers costs is nothing: they are what they are in float64.
    torch.testing.assert_close(distances.double() / scale, expected, rtol=2e-6, atol=0)
    found = (queries.double() / scale - (x.double() / scale)[neighbours].transpose(0, 1)).norm(dim=2).T
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=0)


# float32 cannot tell apart the distances from an outlier, whichever way they are computed; and the gradient
# with respect to huge or tiny features is tiny or huge.
@pytest.mark.parametrize("name", sorted(POINTS.keys() - {"an outlier", "huge", "tiny", "subnormal"}))
@pytest.mark.usefixtures("shape")
def test_value_and_gradient_are_those_of_float64(name):
    rounded = POINTS[name].float()
    results = []
    for x in (rounded, rounded.double()):
        x = x.clone().requires_grad_()
        reference = x.detach().clone().requires_grad_()
        own = torch.arange(len(x))
        loss = ldreg_loss(x, k=K)
        lids = local_intrinsic_dimensionality(x, reference, K, self_indices=own).log().mean()
        results.append((loss, *torch.autograd.grad(loss, x), *torch.autograd.grad(lids, (x, reference))))
    for found, expected in zip(*results, strict=True):
        assert (found - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.usefixtures("shape")
def test_the_gradient_is_that_of_one_of_two_neighbours_equally_far():
    last = 2 * normal(1, 40)
    nearer = normal(K - 1, 40, seed=1)

    def gradient(*points, dtype=torch.float64):
        query = torch.zeros(1, 40, dtype=dtype, requires_grad=True)
        reference = torch.cat(points).float().to(dtype)
        return torch.autograd.grad(local_intrinsic_dimensionality(query, reference, K).log(), query)[0]

    found = gradient(nearer, last, last.flip(1), dtype=torch.float32)
    errors = [float((found - gradient(nearer, each)).norm() / found.norm()) for each in (last, last.flip(1))]
    assert min(errors) < 1e-5 and max(errors) > 0.1


@pytest.mark.usefixtures("shape")
def test_all_rows_but_those_of_equal_distances_have_the_gradient_of_float64():
    rounded = normal(512, 512).float()
    results = []
    for x in (rounded, rounded.double()):
        x = x.clone().requires_grad_()
        results.append(torch.autograd.grad(ldreg_loss(x, k=96), x)[0])
    errors = (results[0] - results[1]).norm(dim=1) / results[1].norm(dim=1)
    gaps = torch.cdist(rounded.double(), rounded.double()).sort(dim=1).values[:, 95:98].diff(dim=1)
    assert errors[gaps.amin(dim=1) > 1e-5].max() < 1e-5


def test_the_candidates_of_one_set_are_those_of_two():
    x = normal(600, 40).float()
    own = torch.arange(len(x))
    one, two = nearest_neighbours(x, x, K, own), nearest_neighbours(x[:-1], x, K, own[:-1])
    torch.testing.assert_close(one[0][:-1], two[0], rtol=1e-6, atol=0)
    assert (one[1][:-1] == two[1]).all()


def test_a_tight_cluster_is_searched_by_differences(monkeypatch):
    x = clusters(1e-6).float()
    expected = nearest_neighbours(x, x, K, torch.arange(len(x)))[0]
    monkeypatch.setattr("solo_dimreg.functional.neighbours._MARGIN", 3 * 40)
    assert torch.equal(nearest_neighbours(x, x, K, torch.arange(len(x)))[0], expected)


@pytest.mark.usefixtures("shape")
def test_rows_that_overflowed_do_not_spoil_the_others():
    x = normal(100, 8).float()
    expected = nearest_neighbours(x[1:], x[1:], K, torch.arange(99))[0]
    for bad in (torch.nan, torch.inf):
        x[0] = bad
        distances, _ = nearest_neighbours(x, x, K, torch.arange(100))
        torch.testing.assert_close(distances[1:], expected, rtol=1e-6, atol=0)
        assert not distances[0].isfinite().any()


@pytest.mark.usefixtures("shape")
@pytest.mark.parametrize("far", [1e21, 1e25, 1e30])
def test_an_outlier_leaves_the_others_alone(far):
    x = torch.randn(100, 20, generator=torch.Generator().manual_seed(0))
    expected = nearest_neighbours(x[1:], x[1:], 8, torch.arange(99))[0]
    x[0] = far
    distances, _ = nearest_neighbours(x, x, 8, torch.arange(100))
    torch.testing.assert_close(distances[1:], expected)


def test_the_memory_of_two_sets_is_that_of_one_only_where_it_is():
    """A view with the negative bit has the memory of its other half, and a subclass may have none."""
    z = torch.complex(*normal(2, 300, 8).float())
    expected = nearest_neighbours(z.imag.clone(), -z.imag.clone(), K, None)
    assert z.conj().imag.is_neg() and z.conj().imag.data_ptr() == z.imag.data_ptr()
    found = nearest_neighbours(z.imag, z.conj().imag, K, None)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    one, other = (TwoTensor(each.clone(), each.clone()) for each in normal(2, 40, 8))
    assert one.data_ptr() == other.data_ptr() == 0
    found = nearest_neighbours(one, other, K, None)[0]
    torch.testing.assert_close(found.a, nearest_neighbours(one.a, other.a, K, None)[0])
