"""LID against closed forms, scikit-dimension, a naive NumPy version and float64 gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numeric import normal
from torch.autograd import gradcheck

from solo_dimreg.functional import geometric_mean_lid, local_intrinsic_dimensionality

ESTIMATORS = ["mom", "mle"]


def naive_lid(query, reference, k, estimator):
    """One query in NumPy, straight from the definition; ``reference`` does not hold the query."""
    d = np.sort(np.linalg.norm(reference - query, axis=1))[:k]
    if estimator == "mle":
        return -1 / np.mean(np.log(d / d[-1]))
    m = d[:-1].mean()
    return m / (d[-1] - m)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("d", [1, 2, 5, 12])
def test_centre_of_a_ball_has_its_dimension(d, estimator):
    # Distances from the centre of a uniform d-ball have the distribution r^d at every radius, so the estimate
    # is free of curvature. Its relative standard deviation is at most 1.16 / sqrt(k): 5 of them are 6 %.
    k = 10_000
    directions = normal(k + 1, d)
    radii = torch.rand(k + 1, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64) ** (1 / d)
    ball = directions / directions.norm(dim=1, keepdim=True) * radii
    embedding, _ = torch.linalg.qr(normal(40, d, seed=2))
    lid = local_intrinsic_dimensionality(torch.zeros(1, 40).double(), ball @ embedding.T, k, estimator)
    assert lid.item() == pytest.approx(d, rel=0.06)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("d", [1, 2])
def test_flat_torus_has_its_dimension_everywhere(d, estimator):
    # k / n of the torus lies within a radius of 0.25 at most, where chord and arc differ by 0.3 %; the
    # average over 4,000 points leaves about 2 % of sampling error.
    angles = 2 * torch.pi * torch.rand(4000, d, generator=torch.Generator().manual_seed(3))
    torus = torch.cat([angles.cos(), angles.sin()], dim=1)
    k = 20
    lid = local_intrinsic_dimensionality(torus, k=k, estimator=estimator)
    # The mean of 1 / LID of the k - 1 inner distances is unbiased for Hill; (LID + 1)^-1 is for the moments.
    unbiased = (k - 1) / k / (1 / lid).mean() if estimator == "mle" else 1 / (1 / (1 + lid)).mean() - 1
    assert unbiased.item() == pytest.approx(d, rel=0.05)


@pytest.mark.parametrize("k", [3, 10, 50])
def test_scikit_dimension_agrees_up_to_its_convention(k):
    skdim_id = pytest.importorskip("skdim.id")
    x = normal(120, 6)
    mom = local_intrinsic_dimensionality(x, k=k, estimator="mom").numpy()
    mle = local_intrinsic_dimensionality(x, k=k, estimator="mle").numpy()
    # With S the sum of the first k - 1 distances, skdim's mean is (S + d_k) / k and ours S / (k - 1).
    theirs = skdim_id.MOM().fit(x.numpy(), n_neighbors=k).dimension_pw_
    np.testing.assert_allclose((mom + 1) * k / (k - 1), theirs + 1, rtol=1e-9)
    theirs = skdim_id.MLE().fit(x.numpy(), n_neighbors=k).dimension_pw_
    np.testing.assert_allclose(mle * (k - 1) / k, theirs, rtol=1e-9)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_separate_reference_against_numpy(estimator):
    x, reference = normal(7, 5), normal(30, 5, seed=1)
    expected = [naive_lid(q, reference.numpy(), 8, estimator) for q in x.numpy()]
    lid = local_intrinsic_dimensionality(x, reference, 8, estimator)
    np.testing.assert_allclose(lid.numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("k", [2, 5, 16])
def test_gradient_in_queries_and_reference(k, estimator):
    x, reference = normal(6, 4).requires_grad_(), normal(16, 4, seed=1).requires_grad_()
    assert gradcheck(lambda a: local_intrinsic_dimensionality(a, reference.detach(), k, estimator), (x,))
    assert gradcheck(lambda a, b: local_intrinsic_dimensionality(a, b, k, estimator), (x, reference))
    assert gradcheck(lambda a: local_intrinsic_dimensionality(a, k=k, estimator=estimator), (x,))


def test_results_do_not_depend_on_the_blocks(monkeypatch):
    def value_and_gradients():
        x, reference = normal(9, 4).requires_grad_(), normal(20, 4, seed=1).requires_grad_()
        lid = local_intrinsic_dimensionality(x, reference, 5)
        return lid, *torch.autograd.grad(lid.log().sum(), (x, reference))

    whole = value_and_gradients()
    for name, size in {"_NUMBERS_ON_CPU": 45, "MAX_BYTES": 8 * 45, "_TILE": 4}.items():
        monkeypatch.setattr(f"solo_dimreg.functional.neighbours.{name}", size)
    torch.testing.assert_close(value_and_gradients(), whole, rtol=1e-12, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(4, 40),
    d=st.integers(1, 8),
    scale=st.floats(1e-3, 1e3),
    estimator=st.sampled_from(ESTIMATORS),
)
def test_invariant_to_scale_rotation_and_translation(seed, n, d, scale, estimator):
    x, shift = normal(n, d, seed=seed), normal(1, d, seed=seed + 1)
    rotation, _ = torch.linalg.qr(normal(d, d, seed=seed + 2))
    before = local_intrinsic_dimensionality(x, k=8, estimator=estimator)
    after = local_intrinsic_dimensionality(scale * (x @ rotation + shift), k=8, estimator=estimator)
    # Rounding of the shifted points moves d_k - d_i by about 1e-15, which counts LID^2-fold in LID.
    torch.testing.assert_close(1 / (1 + after), 1 / (1 + before), rtol=1e-9, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), b=st.integers(1, 12), extra=st.integers(0, 12), k=st.integers(2, 30))
def test_leaving_out_by_index_equals_removing_the_row(seed, b, extra, k):
    x, others = normal(b, 3, seed=seed), normal(extra, 3, seed=seed + 1)
    reference = torch.cat([others, x])
    own = extra + torch.arange(b)
    lid = local_intrinsic_dimensionality(x, reference, k, self_indices=own)
    for i in range(b):
        rest = torch.cat([reference[: extra + i], reference[extra + i + 1 :]])
        alone = torch.ones(1, dtype=torch.float64)
        expected = local_intrinsic_dimensionality(x[i : i + 1], rest, k) if len(rest) else alone
        torch.testing.assert_close(lid[i : i + 1], expected, rtol=1e-9, atol=0)


def test_the_batch_as_its_own_reference_is_left_out_by_index():
    x = normal(20, 5)
    explicit = local_intrinsic_dimensionality(x, x, 6, self_indices=torch.arange(20))
    torch.testing.assert_close(local_intrinsic_dimensionality(x, k=6), explicit, rtol=0, atol=0)


def test_duplicates_stay_as_neighbours_at_distance_zero():
    x = torch.tensor([[0.0], [0.0], [1.0], [3.0]])
    lid = local_intrinsic_dimensionality(x, k=3)
    # The first point sees distances 0, 1 and 3: m = 0.5 and LID = 0.5 / 2.5.
    assert lid[0].item() == pytest.approx(0.2)
    assert lid[1].item() == lid[0].item()


def test_k_is_capped_at_the_neighbours_there_are():
    x = normal(10, 4)
    torch.testing.assert_close(
        local_intrinsic_dimensionality(x, k=1000), local_intrinsic_dimensionality(x, k=9)
    )
    torch.testing.assert_close(
        local_intrinsic_dimensionality(x[:3], x[3:], k=1000),
        local_intrinsic_dimensionality(x[:3], x[3:], k=7),
    )


@pytest.mark.parametrize("x", [torch.zeros(1, 3), torch.zeros(2, 3), torch.zeros(9, 3), normal(2, 3)])
def test_no_information_is_lid_one_with_zero_gradient(x):
    x = x.detach().requires_grad_()
    lid = local_intrinsic_dimensionality(x, k=5)
    (gradient,) = torch.autograd.grad(lid.sum(), x)
    assert (lid == 1).all() and (gradient == 0).all()


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_features_that_overflowed_are_nan(bad, estimator):
    x = normal(10, 3)
    x[4, 1] = bad
    lid = local_intrinsic_dimensionality(x, k=5, estimator=estimator)
    assert torch.isnan(lid[4])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_are_computed_in_float32(dtype):
    x = normal(30, 16).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = local_intrinsic_dimensionality(x, k=8)
    torch.testing.assert_close(half, local_intrinsic_dimensionality(x.float(), k=8), rtol=0, atol=0)


def test_near_identical_features_keep_their_distances():
    x = (100 + 1e-3 * normal(64, 32)).float()
    exact = local_intrinsic_dimensionality(x.double(), k=16)
    torch.testing.assert_close(local_intrinsic_dimensionality(x, k=16).double(), exact, rtol=1e-4, atol=0)
    # The same estimate on distances by matrix product, as torch takes them by default, is not even close.
    d = torch.cdist(x, x, compute_mode="use_mm_for_euclid_dist").sort(dim=1).values
    m = d[:, 1:16].mean(dim=1)
    shortcut = m / (d[:, 16] - m)
    assert not torch.allclose(shortcut.double(), exact, rtol=0.5)


def test_geometric_mean():
    x = normal(25, 6)
    lids = local_intrinsic_dimensionality(x, k=7, estimator="mle")
    expected = np.exp(np.mean(np.log(lids.numpy())))
    assert geometric_mean_lid(x, k=7, estimator="mle").item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 1}, "k must be an integer >= 2, got 1"),
        ({"k": 0, "estimator": "mle"}, "k must be an integer >= 2, got 0"),
        ({"k": True}, "got True"),
        ({"k": 8.0}, "got 8.0"),
        ({"estimator": "mlee"}, "Unknown estimator 'mlee'. Did you mean 'mle'\\? Valid: mle, mom"),
        ({"reference": torch.zeros(5, 4)}, r"\(5, 4\) and \(6, 3\)"),
        ({"reference": torch.zeros(5)}, r"reference must have shape \(B, D\)"),
        ({"self_indices": torch.arange(6)}, "no reference was given"),
        ({"reference": torch.zeros(9, 3), "self_indices": torch.arange(5)}, r"shape \(6,\)"),
        ({"reference": torch.zeros(9, 3), "self_indices": torch.zeros(6)}, "torch.float32"),
        ({"x": torch.zeros(6, 3, 2)}, r"\(6, 3, 2\)"),
        ({"x": torch.zeros(0, 3)}, r"\(0, 3\)"),
        ({"x": torch.zeros(6, 3, dtype=torch.long)}, "torch.int64"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        local_intrinsic_dimensionality(**{"x": torch.zeros(6, 3), **arguments})
