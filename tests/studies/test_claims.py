"""Claims: the statistics against SciPy and a simulation, the decisions, and one claim end to end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from solo_dimreg.errors import ConfigError
from solo_dimreg.studies.claims.builtin import builtin_claims
from solo_dimreg.studies.claims.claim import Claim, Number, decide
from solo_dimreg.studies.claims.statistics import LEVEL, all_above, any_below, estimate, holm
from solo_dimreg.studies.claims.study import all_claims, run_claims
from solo_dimreg.studies.suites import Row


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


def test_seeds_that_all_agree_are_certain() -> None:
    assert (estimate([2.0, 2.0]).p_above, estimate([-2.0, -2.0]).p_above) == (0, 1)
    assert (estimate([0.0, 0.0]).p_above, estimate([0.0, 0.0]).p_below) == (1, 1)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, np.nan], [1.0, np.inf]])
def test_too_few_or_infinite_numbers_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="at least two finite numbers"):
        estimate(values)


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


def test_a_ladder_holds_by_its_weakest_step() -> None:
    strong, weak, wrong = ([m + d for d in (-0.1, 0.0, 0.1, 0.05)] for m in (1.0, 0.01, -1.0))
    estimates = [estimate(values) for values in (strong, weak)]
    assert all_above(estimates) == estimates[1].p_above > LEVEL
    assert any_below([*estimates, estimate(wrong)]) == pytest.approx(3 * estimate(wrong).p_below)


def claim(name: str, paper: str = "paper", rows: tuple[Row, ...] = ()) -> Claim:
    return Claim(
        name, paper, "table", "says.", "1", rows, (Number("x", lambda results: results["row"][name]),)
    )


def test_verdicts() -> None:
    rng = np.random.default_rng(2)
    results = [
        {"row": {"up": 1 + 0.1 * e, "down": -1 + 0.1 * e, "none": 0.1 * (-1) ** i, "alone": 0.08 + 0.1 * e}}
        for i, e in enumerate(rng.normal(size=8))
    ]
    outcomes = decide([claim("up"), claim("down"), claim("none")], results)
    assert [outcome.verdict for outcome in outcomes] == ["holds", "contradicted", "not shown"]
    assert outcomes[0].values[0] == tuple(seed["row"]["up"] for seed in results)
    # Holm's correction is over the claims of the same paper alone.
    (alone,) = decide([claim("alone")], results)
    (among, *_) = decide([claim("alone"), claim("none"), claim("down")], results)
    (other, *_) = decide([claim("alone"), claim("none", "another"), claim("down", "another")], results)
    assert alone.p == other.p < among.p


def test_every_claim_says_what_is_to_be_said() -> None:
    claims = builtin_claims()
    assert len({each.name for each in claims}) == len(claims) >= 15
    assert {each.paper.split()[0] for each in claims} == {"LDReg", "DirectCLR", "Feature", "AdaDim"}
    for each in claims:
        assert each.sentence.endswith(".") and each.published and each.place and each.numbers and each.rows
    rows: dict[str, Row] = {}
    for row in (row for each in claims for row in each.rows):
        assert rows.setdefault(row.name, row) == row, "two runs under one name"


@pytest.mark.parametrize("data", ["digits", "patches"])
def test_rows_differ_from_their_config_by_what_is_compared(data: str) -> None:
    from solo_dimreg.hosts import plain, register
    from solo_dimreg.running.checks import check_common
    from solo_dimreg.running.settings import compose
    from solo_dimreg.studies.claims.study import SHORT

    for row in {row.name: row for each in builtin_claims() for row in each.rows}.values():
        ours = compose("pretrain", data, row.config, (*SHORT, *row.overrides))
        check_common(ours)
        assert ours.method in register().methods
        theirs = plain(compose("pretrain", data, row.config, SHORT))
        changed = {key for key, value in plain(ours).items() if theirs.get(key) != value}
        assert changed <= {"name", "method", "method_kwargs", "regularizers"}


def test_one_claim_end_to_end(tmp_path: Path, few_digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [f"data.{split}_path={few_digits / split}" for split in ("train", "val")]
    arguments = (
        Path("out"),
        ["decorrelation-none"],
        2,
        "digits",
        1,
        ["max_epochs=1", "optimizer.batch_size=32", *paths],
    )
    said: list[str] = []
    (outcome,) = run_claims(
        *arguments, linear_overrides=["max_epochs=1", "optimizer.batch_size=32"], say=said.append
    )
    assert outcome.verdict in ("holds", "not shown", "contradicted") and len(outcome.values[0]) == 2
    content = json.loads(Path("out/claims.json").read_text())
    (written,) = content["outcomes"]
    assert written["rows"] == ["none", "bn"] and written["values"] == [list(outcome.values[0])]
    results = {
        (row, seed): json.loads(
            next(Path(f"out/runs/digits/{row}/seed{seed}").rglob("result.json")).read_text()
        )
        for row in ("none", "bn")
        for seed in (5, 6)
    }
    expected = [results["bn", seed]["linear_acc1"] - results["none", seed]["linear_acc1"] for seed in (5, 6)]
    assert list(outcome.values[0]) == pytest.approx(expected)
    assert outcome.verdict in Path("out/claims.md").read_text()
    page = Path("out/claims.html").read_text()
    assert "decorrelation-none" in page and "<svg" in page and "script" not in page
    said.clear()
    (again,) = run_claims(
        *arguments, linear_overrides=["max_epochs=1", "optimizer.batch_size=32"], say=said.append
    )
    assert again.values == outcome.values and sum("finished before" in line for line in said) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ["ldreg-lid-biol"]}, "Unknown claim 'ldreg-lid-biol'. Did you mean 'ldreg-lid-byol'"),
        ({"seeds": 1}, "--seeds: 1 is not allowed; an interval needs at least 2"),
        ({"data": "digit"}, "--data: Unknown data 'digit'. Did you mean 'digits'"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        run_claims(tmp_path / "out", **changes)
    assert message in str(error.value) and not (tmp_path / "out").exists()


def test_plugins_bring_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    from solo_dimreg.errors import PluginError
    from solo_dimreg.plugins.manager import Registration

    theirs = claim("their-claim")
    found = {"their-claim": Registration("their-claim", "claims", theirs, "plugin", "package")}
    monkeypatch.setattr("solo_dimreg.studies.claims.study.registered", lambda kind: found)
    assert all_claims()["their-claim"] is theirs
    clash = {"minlid": replace(found["their-claim"], name="minlid")}
    monkeypatch.setattr("solo_dimreg.studies.claims.study.registered", lambda kind: clash)
    with pytest.raises(PluginError, match=r"package .* registers the claim 'minlid'"):
        all_claims()


def test_the_list_needs_no_run(here) -> None:
    done = here("claims", "--list", "--json")
    content = json.loads(done.stdout)
    assert done.returncode == 0 and "Holm" in content["rule"]
    assert {each["name"] for each in content["claims"]} >= {"minlid", "directclr-ladder", "adadim-alpha"}
