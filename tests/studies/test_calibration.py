"""The calibration of the verdict: its cases, and that the page and the committed results agree with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from solo_dimreg.studies.calibration import (
    FAMILIES,
    REPORTED,
    STRONG_NOISE,
    Case,
    cases,
    is_wrong,
    judge_case,
    low_rank,
    space_of,
    trained_study,
    verdict_tables,
)

DOCS = Path(__file__).parents[2] / "docs"
CONTENT = json.loads((DOCS / "data" / "verdict.json").read_text())


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_signal_of_a_rank_with_noise() -> None:
    squares = low_rank(64, 4, 0.1, True, generator()) ** 2
    torch.testing.assert_close(squares, torch.tensor([1.01] * 4 + [0.01] * 60))
    entries = low_rank(64, 4, 0.1, False, generator()) ** 2
    # In each of 64 entries, the signal has variance 1 on average, and the noise 0.01.
    assert (entries.sum() - 64 * 0.01).item() == pytest.approx(64, rel=0.2)
    torch.testing.assert_close(entries[4:], torch.full((60,), 0.01))


def test_the_covariance_that_is_drawn_without_rows() -> None:
    """Its spectrum is that of as many rows."""
    case = Case("", (), {}, torch.linspace(2, 0.5, 24))
    drawn = space_of(case, 24, 4_000, generator()).spectrum
    rows = torch.randn(4_000, 24, generator=generator()) * case.deviations
    expected = torch.linalg.eigvalsh(rows.T.cov().double()).flip(0)
    torch.testing.assert_close(drawn, expected, rtol=0.1, atol=0)
    assert not torch.equal(drawn, expected)


def test_the_committed_verdicts_are_those_of_the_rules() -> None:
    """A third of the small cases, judged again."""
    assert {case["family"] for case in CONTENT["cases"]} == {*FAMILIES} and CONTENT["seed"] == REPORTED
    again = 0
    for place, (each, known) in enumerate(
        zip(cases(REPORTED, CONTENT["scale"]), CONTENT["cases"], strict=True)
    ):
        assert (each[0].family, each[1], each[2]) == (known["family"], known["width"], known["rows"])
        if place % 3 == 0 and each[1] * each[2] <= 2**15:
            found = judge_case(*each)
            assert (found["kind"], found["signal_rank"]) == (known["kind"], known["signal_rank"])
            again += 1
    assert again > 8


def test_the_noisy_cases_of_low_rank_are_in_the_denominator() -> None:
    noisy = {
        **CONTENT["cases"][0],
        "rank": 1,
        "family": STRONG_NOISE,
        "expected": ["collapsed", "partly collapsed"],
    }
    told = verdict_tables(
        [{**CONTENT, "cases": [CONTENT["cases"][0], {**noisy, "kind": "partly collapsed"}]}]
    )
    assert "**0 of 2** cases (0.0 %) with a rank of at most an eighth" in told
    assert "**1 of 2** cases (50.0 %) are not called collapsed, if those in noise of more than 45 %" in told


def test_the_page_has_the_committed_table() -> None:
    page = (DOCS / "verdict.md").read_text()
    assert verdict_tables([CONTENT]).strip() in page
    wrong = {**CONTENT["cases"][0], "kind": "healthy"}
    assert is_wrong(wrong) and not is_wrong({**wrong, "kind": "cannot tell"})
    assert "*healthy*" in verdict_tables([{**CONTENT, "cases": [wrong]}])


def test_the_rows_that_are_trained() -> None:
    study = trained_study()
    assert list(study.rows) == [each["row"] for each in CONTENT["trained"]]
    changes = ["method_kwargs.normalization=none", "optimizer.lr=6.4e-2"]
    assert (study.rows["none_lr_6.4e-2"].config, study.rows["none_lr_6.4e-2"].set) == (
        "shuffled_dbn",
        changes,
    )
    assert not any(study.measures(row) for row in study.rows)
