"""The statistics of the claims, against SciPy and a simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from solo_dimreg.studies.statistics import LEVEL, all_above, any_below, estimate, holm


def test_the_estimate_is_students_t() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, 8)
    found = estimate(values)
    error = values.std(ddof=1) / 8**0.5
    half = stats.t.ppf(0.975, 7) * error
    assert (found.mean, found.low, found.high) == pytest.approx(
        (values.mean(), values.mean() - half, values.mean() + half)
    )
    assert found.p_above == pytest.approx(stats.t.sf(values.mean() / error, 7))
    assert found.p_below == pytest.approx(stats.t.cdf(values.mean() / error, 7))


def test_seeds_that_all_agree_count_as_in_a_sign_test() -> None:
    for count in (2, 8):
        expected = stats.binomtest(count, count, alternative="greater").pvalue
        assert estimate([2.0] * count).p_above == pytest.approx(expected)
        assert (estimate([-2.0] * count).p_above, estimate([-2.0] * count).p_below) == (1, expected)
    assert (estimate([0.0, 0.0]).p_above, estimate([0.0, 0.0]).p_below) == (1, 1)


@pytest.mark.parametrize(
    ("value", "rounding"),
    [(0.1, 1.4e-17), (81.3 - 80.4, 1e-14), (512.25, 1e-13), (-3.0, 4e-10), (0.0, 5e-14)],
)
def test_rounding_does_not_decide_how_much_equal_seeds_show(value: float, rounding: float) -> None:
    noise = np.random.default_rng(0).uniform(-rounding, rounding, 8)
    rounded, exact = estimate(list(value + noise)), estimate([value] * 8)
    assert (rounded.p_above, rounded.p_below) == (exact.p_above, exact.p_below)
    assert rounded.p_above == (stats.binomtest(8, 8, alternative="greater").pvalue if value > 0 else 1)
    assert rounded.mean == pytest.approx(value, abs=1e-9) and rounded.error == 0
    # All of one sign, which for noise about 0 would be a certainty of the other kind.
    assert estimate(list(np.abs(noise) + value)).p_above == exact.p_above


def test_differences_above_rounding_are_students() -> None:
    values = 1 + 1e-6 * np.random.default_rng(0).normal(size=8)
    expected = stats.ttest_1samp(values, 0.0, alternative="greater").pvalue
    assert estimate(list(values)).p_above == pytest.approx(expected) and expected < 1e-30


@pytest.mark.parametrize("values", [[], [1.0]])
def test_too_few_numbers_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="at least two numbers"):
        estimate(values)


@pytest.mark.slow
def test_intervals_cover_and_false_verdicts_are_rare() -> None:
    rng = np.random.default_rng(1)
    draws = rng.normal(0.0, 1.0, (4000, 8))
    found = [estimate(row) for row in draws]
    assert np.mean([each.low <= 0 <= each.high for each in found]) == pytest.approx(0.95, abs=0.02)
    assert np.mean([each.p_above < LEVEL for each in found]) <= 0.05
    # Of five claims of one paper without any effect, one or more hold in at most 5 % of the cases.
    families = [holm([each.p_above for each in found[i : i + 5]]) for i in range(0, 4000, 5)]
    assert np.mean([min(family) < LEVEL for family in families]) <= 0.05


def test_holm_is_its_definition() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.9]) == [1.0, 1.0] and holm([]) == []
    assert holm([0.01, 0.04], 5) == holm([0.01, 0.04, 1, 1, 1])[:2]


def test_a_ladder_holds_by_its_weakest_step() -> None:
    strong, weak, wrong = ([m + d for d in (-0.1, 0.0, 0.1, 0.05)] for m in (1.0, 0.01, -1.0))
    estimates = [estimate(values) for values in (strong, weak)]
    assert all_above(estimates) == estimates[1].p_above > LEVEL
    assert any_below([*estimates, estimate(wrong)]) == pytest.approx(3 * estimate(wrong).p_below)
