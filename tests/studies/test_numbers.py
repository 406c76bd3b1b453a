"""The numbers of the claims: equality, taus, rises and the replayed alarm."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from solo_dimreg.studies.claims.numbers import (
    DRAWDOWN,
    Number,
    diagnosed,
    equal,
    rise,
    slower,
    tau,
)
from solo_dimreg.studies.statistics import all_above, estimate
from solo_dimreg.studies.study import read_study

ALL = read_study("claims")


def test_equal_is_two_one_sided_tests() -> None:
    """statsmodels' ttost_paired has the larger of the same two p-values."""
    rng = np.random.default_rng(3)
    a, b = rng.normal(60, 2, 8), rng.normal(60.5, 2, 8)
    results = [{"a": {"lid": x}, "b": {"lid": y}} for x, y in zip(a, b, strict=True)]
    numbers = equal("lid", "a", "b", 3.0)
    estimates = [estimate([number.of(seed) for seed in results]) for number in numbers]
    low = stats.ttest_rel(a, b - 3.0, alternative="greater").pvalue
    high = stats.ttest_rel(a, b + 3.0, alternative="less").pvalue
    assert all_above(estimates) == pytest.approx(max(low, high))


def test_tau_is_kendalls_and_what_has_no_figure_comes_last() -> None:
    rows = list("abcd")
    accuracies, ranks, alphas = (1, 2, 3, 4), (10, 30, 20, 40), (None, 1.5, 0.8, 1.1)
    results = {
        row: {"linear_acc1": a, "effective_rank": r, "alpha_req": x}
        for row, a, r, x in zip(rows, accuracies, ranks, alphas, strict=True)
    }
    (ranks_alone,) = tau("effective_rank", rows, above=0.3)
    assert ranks_alone.of(results) == pytest.approx((5 - 1) / 6 - 0.3)
    (alphas_alone,) = tau("alpha_req", rows, best=1.0)
    assert alphas_alone.of(results) == pytest.approx(1.0)
    (over,) = tau("effective_rank", rows, over="linear_acc1")
    assert over.of(results) == pytest.approx((5 - 1) / 6 - 1)
    (lower,) = tau("effective_rank", rows, lower=True)
    assert lower.of(results) == pytest.approx(-(5 - 1) / 6) and "of minus effective rank" in lower.says


def test_a_diagnosis_counts_by_its_sign() -> None:
    (number,) = diagnosed("a")
    kinds = {"healthy": -1.0, "cannot tell": -1.0, "collapsed": 1.0, "partly collapsed": 1.0}
    for kind, expected in kinds.items():
        assert number.of({"a": {"verdict": {"kind": kind}}}) == expected / 2
    assert (number.measured(0.5), number.measured(-0.5), number.to_be) == (1, 0, "above 0.5")
    assert np.isnan(number.of({"a": {"failed": "The loss is not finite."}}))


def test_a_tau_within_a_method_has_its_interval_over_the_settings() -> None:
    """Covers the true tau of 12 settings with correlated normal scores, which has a closed form."""
    rows, correlation = [f"setting{i}" for i in range(12)], 0.6
    (number,) = tau("rankme", rows, settings=True)
    assert number.says.endswith("over 12 rows, setting0 to setting11")
    rng, truth, covered = np.random.default_rng(0), 2 / np.pi * np.arcsin(correlation), 0
    for _ in range(200):
        pairs = rng.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], 12)
        seed = {row: {"rankme": x, "linear_acc1": y} for row, (x, y) in zip(rows, pairs, strict=True)}
        found = number.estimate([seed, seed])
        again = number.estimate([seed] * 3)  # the same settings again are no further settings
        assert (again.low, again.high) == pytest.approx((found.low, found.high))
        covered += found.low <= truth <= found.high
    assert 0.9 < covered / 200 < 0.99


def test_the_jackknife_of_a_mean_is_students_t() -> None:
    values = [1.0, 2.5, -0.3, 4.0]
    rows = tuple("abcd")

    def mean(some, results) -> float:
        return float(np.mean([results[row]["x"] for row in some]))

    number = Number("mean", lambda results: mean(rows, results), rows=rows, of_rows=mean)
    found = number.estimate([{row: {"x": x} for row, x in zip(rows, values, strict=True)}] * 2)
    assert (found.mean, found.low, found.high, found.p_above) == pytest.approx(
        [getattr(estimate(values), name) for name in ("mean", "low", "high", "p_above")]
    )


def test_rises_are_between_parts_of_the_training_and_compared_by_the_epoch() -> None:
    def value(numbers: list[Number], results: dict) -> float:
        return numbers[0].of(results)

    results = {"a": {"curves": {"lid": {0: 1.0, 1: 2.0, 2: 4.0, 3: 4.2, 4: 4.4, 5: 4.6}}}}
    assert value(rise("a", "lid", 0, 0.4), results) == pytest.approx(3.0)
    assert value(rise("a", "lid", 0.4, 1), results) == pytest.approx(0.6)
    assert value(slower("a", "lid", 0.4), results) == pytest.approx(3.0 / 2 - 0.6 / 3)
    assert np.isnan(value(slower("a", "lid", 0.4), {"a": {"curves": {"lid": {0: 1.0}}}}))
    assert np.isnan(value(rise("a", "lid", 0, 1), {"a": {"curves": {}}}))
    assert np.isnan(value(rise("a", "lid", 0, 1), {"a": {"failed": "The loss is not finite."}}))


def test_the_alarm_is_replayed_on_recorded_curves() -> None:
    claims = {each.name: each for each in ALL.claims()}

    def results(**curves: list[float]) -> dict:
        healthy = {row: [10.0, 20, 30, 25, 25, 25] for row in claims["alarm-silent"].rows}
        return {
            name: {"curves": {"effective_rank": dict(enumerate(curve))}}
            for name, curve in {**healthy, **curves}.items()
        }

    # A look too few below; from the fourth of six looks on; from the fifth on; never.
    for curve, held, left in (
        ([100.0, 90, 80, 70, 10, 10], 0.30, 0.0),
        ([100.0, 14.5, 10, 12, 90, 90], 0.85, 2 / 6),
        ([50.0, 100, 18.5, 18.5, 15, 10], 0.81, 1 / 6),
        ([10.0, 20, 30, 40, 50, 60], 0.0, 0.0),
    ):
        found = [number.of(results(none=curve)) for number in claims["alarm-none"].numbers]
        assert found == pytest.approx([held - DRAWDOWN, left], abs=1e-9)
    (silent,), (half,) = (claims[name].numbers for name in ("alarm-silent", "alarm-silent-half"))
    assert half.of(results()) == pytest.approx(0.5 - 0.16)
    # 25 of 30 is 16.7 % below, in whole percent.
    assert silent.of(results()) == pytest.approx(DRAWDOWN - 0.16)
    fallen = results(simclr=[100.0, 9.5, 9, 9, 9, 9])
    assert silent.of(fallen) == pytest.approx(DRAWDOWN - 0.9)
    without = {**fallen, "vicreg": {"curves": {}}}
    assert np.isnan(silent.of(without))


def test_the_alarm_is_replayed_on_the_metric_that_a_study_names() -> None:
    claims = {each.name: each for each in read_study("evidence").claims()}
    healthy = {"effective_rank": {0: 40.0, 1: 30, 2: 30, 3: 30}}
    weak = healthy | {"z_effective_rank": dict(enumerate([160.0, 12, 9, 6, 5, 5]))}
    collapsed = {"effective_rank": dict(enumerate([34.0, 6, 5, 5, 5]))}
    results = {"vicreg_weak": {"curves": weak}, "none": {"curves": collapsed}}
    found = [number.of(results) for number in claims["collapse-alarm"].numbers]
    # For three looks in a row it was at most 6 of 160, and 5 of 34.
    assert found == pytest.approx([0.96 - 0.9, 2 / 6, 0.85 - 0.8, 1 / 5], abs=1e-9)
    says = claims["collapse-alarm"].numbers[0].says
    assert says.startswith("the largest drawdown of the effective rank of the embeddings")
    of_embeddings, of_features = claims["collapse-silent"].numbers
    usual = healthy | {"z_effective_rank": {0: 9.0}}
    others = {row: {"curves": usual} for row in claims["collapse-silent"].rows}
    assert of_embeddings.of(others) == pytest.approx(0.9)
    assert of_embeddings.of(others | {"byol": {"curves": weak}}) == pytest.approx(0.9 - 0.96)
    assert of_features.of(others | {"byol": {"curves": weak}}) == pytest.approx(0.8 - 0.25)


def test_the_alarm_is_replayed_with_its_limits() -> None:
    claims = {each.name: each for each in read_study("evidence").claims()}
    (left,) = claims["collapse-line"].numbers
    ranks, low = [40.0] * 6, [0.1] * 6

    def results(ranks: list[float], mean: list[float], correlation: list[float], row: str = "bn") -> dict:
        curves = {"effective_rank": ranks, "z_mean_share": mean, "z_off_diagonal_correlation": correlation}
        return {row: {"curves": {name: dict(enumerate(each)) for name, each in curves.items()}}}

    # Three looks in a row: at a limit, at one and then the other, a fall and then a limit; two and two.
    for given, part in (
        (results(ranks, low, [0.1, 0.97, 0.98, 0.99, 0.1, 0.1]), 2 / 6),
        (results(ranks, [0.1, 0.1, 0.98, 0.1, 0.1, 0.1], [0.1, 0.97, 0.1, 0.99, 0.1, 0.1]), 2 / 6),
        (results([40.0, 4, 4, 40, 40, 40], low, [0.1, 0.1, 0.1, 0.99, 0.1, 0.1]), 2 / 6),
        (results(ranks, low, [0.99, 0.99, 0.1, 0.99, 0.99, 0.96]), 0.0),
    ):
        assert left.of(given) == pytest.approx(part)
    assert np.isnan(left.of(results(ranks, low, [])))

    claim = claims["collapse-limits-silent"]
    others = {row: results(ranks, low, low, row)[row] for row in claim.rows}
    far = results(ranks, low, [0.5, 0.99, 0.98, 0.99, 0.1, 0.1], "dbn")
    assert [each.of(others) for each in claim.numbers] == pytest.approx([0.8, 0.87, 0.87])
    assert [each.of(others | far) for each in claim.numbers] == pytest.approx([0.8, 0.87, -0.01])
    assert [each.to_be for each in claim.numbers] == ["below 0.8", "below 0.97", "below 0.97"]
