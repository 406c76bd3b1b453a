"""The toy experiments: the effects at full size, the parts against NumPy and SciPy."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import subspace_angles
from scipy.special import softmax
from torch import nn

from solo_dimreg.errors import ConfigError
from solo_dimreg.studies.toy.experiments import (
    ImplicitRegularization,
    StrongAugmentation,
    alignment_matrix,
    implicit_regularization,
    mean_diagonal,
    noisy_pairs,
    principal_alignment,
    seeded,
    strong_augmentation,
    subspace_cosine,
    train,
)
from solo_dimreg.studies.toy.stepwise import rise_times, stepwise_learning


def orthogonal(width: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))[0]


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "low", "high"), [(0.01, 0, 0.5), (1.5, 1.5, math.inf)])
def test_strong_noise_collapses_the_noisy_half(noise: float, low: float, high: float) -> None:
    result = strong_augmentation(noise)
    logs = np.log(result.spectra[-1])
    assert result.steps[0] == 0 and result.steps[-1] == 10_000 and len(result.steps) == len(result.spectra)
    assert low <= logs[:8].mean() - logs[8:].mean() <= high
    assert result.gap == pytest.approx(logs[:8].mean() - logs[8:].mean(), rel=1e-5)


@pytest.mark.slow
def test_small_singular_values_stay_behind_and_the_layers_align() -> None:
    result = implicit_regularization()
    leading = result.leading
    assert 8 <= leading < 16
    for layer in (result.layer1, result.layer2):
        np.testing.assert_allclose(np.log(layer[0]), -0.35 * np.arange(16), atol=1e-3)
        assert np.log(layer[-1][leading - 1] / layer[-1][leading]) > 1
    assert np.log(result.spectra[-1][leading - 1] / result.spectra[-1][leading]) > 2
    # Not by chance: any two subspaces of this size share some directions, but not all.
    assert subspace_cosine(result.alignment_before, leading) < 0.6
    assert subspace_cosine(result.alignment_after, leading) > 0.9
    assert mean_diagonal(principal_alignment(result.alignment_after, leading), leading) > 0.9


def test_training_against_a_gradient_by_hand() -> None:
    """Three steps of SGD on one layer, in NumPy, from d loss / d logits = softmax - identity."""
    noise = torch.full((16,), 0.3)
    with seeded(3):
        layer = nn.Linear(16, 16, bias=False)
        weight = layer.weight.detach().double().numpy()
        assert list(train(layer, 0.05, noise, 3)) == [0, 1, 2, 3]
    with seeded(3):
        nn.Linear(16, 16, bias=False)
        batches = [views.double().numpy() for views in itertools.islice(noisy_pairs(noise), 3)]
    for x1, x2 in batches:
        z1, z2 = x1 @ weight.T, x2 @ weight.T
        logits = z1 @ z2.T / 0.1
        slope = (softmax(logits, axis=1) + softmax(logits, axis=0) - 2 * np.eye(128)) / (2 * 128 * 0.1)
        weight = weight - 0.05 * ((slope @ z2).T @ x1 + (slope.T @ z1).T @ x2)
    np.testing.assert_allclose(layer.weight.detach(), weight, atol=2e-5)


def test_dimensions_are_learned_one_by_one_at_the_predicted_times() -> None:
    result = stepwise_learning(seed=2)
    assert result.error < 0.02
    values = np.array(result.eigenvalues)
    assert (values[0] < 1e-6).all() and (values[-1] > 0.95).all()
    between = (np.array(result.predicted[1:]) + result.predicted[:-1]) / 2
    learned = (values > 0.5).sum(axis=1)[np.searchsorted(result.times, between)]
    np.testing.assert_array_equal(learned, range(1, 8))


def test_rise_times_against_an_integrated_mode() -> None:
    """The mode's equation, integrated by SciPy from an aligned start."""
    modes, values = orthogonal(3, 0), np.array([2.0, 1.0, 0.3])
    start = np.array([1e-2, 3e-3, 1e-3])
    correlation = torch.from_numpy(modes @ np.diag(values) @ modes.T)
    weight = torch.from_numpy(np.diag(start) @ modes.T)
    for value, first, found in zip(values, start, rise_times(correlation, weight), strict=True):

        def rise(_: float, s: np.ndarray, g: float = value) -> np.ndarray:
            return 4 * g * s * (1 - g * s**2)

        def half(_: float, s: np.ndarray, g: float = value) -> float:
            return g * s[0] ** 2 - 0.5

        solved = solve_ivp(rise, (0, 50), [first], events=half, rtol=1e-10, atol=1e-14)
        assert float(found) == pytest.approx(solved.t_events[0][0], rel=1e-6)


def test_pairs_differ_where_the_noise_is_and_no_point_is_twice_in_a_batch() -> None:
    noise = torch.zeros(16)
    noise[8:] = 1.5
    with seeded(0):
        batches = torch.stack(list(itertools.islice(noisy_pairs(noise), 100)))  # more than once round
    first, second = batches.unbind(dim=1)
    assert first.shape == (100, 128, 16)
    assert (first[..., :8] == second[..., :8]).all()
    # The difference of two independent draws.
    assert (first - second)[..., 8:].std().item() == pytest.approx(1.5 * 2**0.5, rel=0.01)
    assert all(len(np.unique(batch[:, :8].numpy(), axis=0)) == 128 for batch in first)


def test_alignment_matrix_says_which_direction_meets_which() -> None:
    u1, v1, u2 = (orthogonal(6, seed) for seed in range(3))
    values = np.diag(np.arange(6, 0, -1.0))
    order = [2, 0, 1, 5, 3, 4]  # the second layer takes in most what the first puts out third, and so on
    weight1 = torch.from_numpy(u1 @ values @ v1.T)
    weight2 = torch.from_numpy(u2 @ values @ u1[:, order].T)
    found = alignment_matrix(weight1, weight2).abs().numpy()
    np.testing.assert_allclose(found, np.eye(6)[order], atol=1e-12)


@pytest.mark.parametrize("leading", [1, 3, 5])
def test_subspace_cosine_against_scipy(leading: int) -> None:
    v2, u1 = orthogonal(6, 4), orthogonal(6, 5)
    expected = np.cos(subspace_angles(v2[:, :leading], u1[:, :leading]).max())
    alignment = (v2.T @ u1).tolist()
    assert subspace_cosine(alignment, leading) == pytest.approx(expected, abs=1e-6)
    principal = np.array(principal_alignment(alignment, leading))
    cosines = np.sort(np.cos(subspace_angles(v2[:, :leading], u1[:, :leading])))[::-1]
    np.testing.assert_allclose(principal[:leading, :leading], np.diag(cosines), atol=1e-6)
    np.testing.assert_allclose(principal @ principal.T, np.eye(6), atol=1e-9)


def test_reversed_order_is_aligned_as_a_subspace_but_not_on_the_diagonal() -> None:
    backwards = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    assert subspace_cosine(backwards, 2) == pytest.approx(1)
    assert mean_diagonal(backwards, 2) == 0
    assert mean_diagonal(backwards, 3) == pytest.approx(1 / 3)


def test_figures_of_given_spectra() -> None:
    assert StrongAugmentation(1.0, spectra=[[math.e**2] * 8 + [math.e**-1] * 8]).gap == pytest.approx(3)
    layers = {"layer1": [[1.0, 0.5, 0.3, 0.1]], "layer2": [[8.0, 4.0, 1.0, 1.0]]}
    assert ImplicitRegularization(**layers).leading == 2


def test_a_seed_repeats_and_leaves_the_callers_draws_alone() -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first, again, other = (implicit_regularization(steps=5, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert first == again and first != other


@pytest.mark.parametrize(
    "experiment", [implicit_regularization, lambda steps: strong_augmentation(1.5, steps)]
)
def test_no_steps_are_refused(experiment) -> None:
    with pytest.raises(ConfigError, match="steps must be an integer >= 1, got 0"):
        experiment(steps=0)


def test_the_command_writes_figures_and_plots(here, tmp_path: Path) -> None:
    run = here("toy", "--out", "deep/toy", "--steps", "150", "--seed", "4")
    assert run.returncode == 0, run.stderr
    out = tmp_path / "deep" / "toy"
    written = {"toy.json", "strong_augmentation.png", "implicit_regularization.png", "alignment.png"}
    written |= {"stepwise_learning.png"}
    assert {path.name for path in out.iterdir()} == written
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in out.glob("*.png"))

    results = json.loads((out / "toy.json").read_text())
    assert (results["steps"], results["seed"]) == (150, 4)
    alone = strong_augmentation(1.5, steps=150, seed=4)
    np.testing.assert_allclose(results["strong_augmentation"][1]["spectra"], alone.spectra, rtol=1e-3)
    assert f"{results['effects']['gap']['1.5']:.2f}" in run.stdout and "deep/toy" in run.stdout
    alignment = np.array(results["implicit_regularization"]["alignment_after"])
    np.testing.assert_allclose(alignment @ alignment.T, np.eye(16), atol=1e-9)


def test_the_command_refuses_no_steps_in_one_line(here, tmp_path: Path) -> None:
    run = here("toy", "--out", str(tmp_path / "toy"), "--steps", "0")
    assert run.returncode == 2
    assert run.stderr.strip() == "error: steps must be an integer >= 1, got 0."
    assert not (tmp_path / "toy").exists()
