"""The answer of a comparison: its statistics against SciPy and simulations, its words, and its page."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from solo_dimreg.studies.answer import answer_of
from solo_dimreg.studies.compare_page import TAUS, changes_yaml, label_free, write_answer
from solo_dimreg.studies.power import assumed_spread, power_statement, smallest_difference
from solo_dimreg.studies.statistics import level_of_look

CLAIMS = Path(__file__).parents[2] / "docs/data/claims.json"
GAIN = np.array([9, 10, 9, 10, 9])
WEAK = "byol +regularizers.decorrelation.weight=0.01"


def results(rows: Mapping[str, Sequence[float]], **more: Any) -> dict[str, Any]:
    """Return the results of runs with these linear accuracies, for the seeds from 5 on."""
    seeds = [5 + i for i in range(max(map(len, rows.values())))]
    runs = [
        {"row": name, "seed": 5 + i, "linear_acc1": float(value), "effective_rank": 3 * float(value)}
        for name, values in rows.items()
        for i, value in enumerate(values)
    ]
    configs = {name: {"title": "", "config": name.split()[0], "overrides": name.split()[1:]} for name in rows}
    content = {"study": "mine", "baseline": next(iter(rows)), "rows": configs, "seeds": seeds, "runs": runs}
    return {**content, "planned_seeds": seeds, "looks": [], **more}


def words(content: Mapping[str, Any]) -> dict[str, str]:
    return {row.name: row.word for row in answer_of(content).others}


def test_differences_are_paired_and_corrected() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(60, 5, 6)
    rows = {"base": base, **{f"row{i}": base + rng.normal(4 * i, 1, 6) for i in range(3)}}
    answer = answer_of(results(rows))
    found = {name: stats.ttest_rel(values, base) for name, values in rows.items() if name != "base"}
    for row in answer.others:
        interval = found[row.name].confidence_interval(1 - 0.05 * 2 / 3)
        shown = row.differences["linear_acc1"]
        assert (shown.low, shown.high) == pytest.approx((interval.low, interval.high))
    # By hand: Holm's factors 3, 2, 1 from the smallest p-value on; the first look has two thirds of the 5 %.
    (p0, p1, p2) = sorted(each.pvalue * 1.5 for each in found.values())
    by_hand = [3 * p0, max(3 * p0, 2 * p1), max(3 * p0, 2 * p1, p2)]
    assert sorted(row.p for row in answer.others) == pytest.approx([min(1, p) for p in by_hand])
    mean = stats.t.interval(1 - 0.1 / 3, 5, base.mean(), stats.sem(base))
    assert answer.rows[0].means["linear_acc1"].low == pytest.approx(mean[0])
    assert words(results(rows)) == {"row0": "not shown", "row1": "better", "row2": "better"}
    assert answer.take == "row2" and "Which of these is best was not tested" in answer.sentence()


def test_accuracies_near_those_of_guessing_are_no_comparison() -> None:
    """Compare with guessing: 25 % in four classes, with a standard error of 3.4 points on 160 images."""
    few = {"base": [29, 31, 28], "row": [27, 26, 31]}
    content = results(few)
    for run in content["runs"]:
        run |= {"chance": 25.0, "val_images": 160}
    said = answer_of(content).sentence()
    assert "All rows are near 25 %" in said and "train longer" in said
    for run in content["runs"]:
        run["linear_acc1"] += 4
    assert "near 25 %" not in answer_of(content).sentence()
    assert "near" not in answer_of(results(few)).sentence()
    # A first row that failed hides nothing of the others.
    content["runs"] = [
        {"row": "base", "seed": run["seed"], "failed": "NaN"} if run["row"] == "base" else run
        for run in content["runs"]
    ]
    for run in content["runs"]:
        run |= {"linear_acc1": 80.0} if run["row"] == "row" else {}
    assert "near" not in answer_of(content).sentence()


def test_all_looks_together_have_five_percent_errors() -> None:
    assert level_of_look(1) == pytest.approx(0.05 * 2 / 3)
    assert sum(level_of_look(look) for look in range(1, 40)) == pytest.approx(0.05)
    rng, rows, draws = np.random.default_rng(1), 3, 20_000
    runs = rng.normal(size=(draws, rows + 1, 12)) + rng.normal(0, 2, (draws, 1, 12))
    differences = runs[:, 1:] - runs[:, :1]
    wrong, naive, outside = (np.zeros(draws, bool) for _ in range(3))
    for look, seeds in enumerate((3, 6, 9, 12), 1):
        tests = stats.ttest_1samp(differences[:, :, :seeds], 0.0, axis=2)
        smallest = rows * tests.pvalue.min(axis=1)  # Holm rejects one if this is below the level
        wrong |= smallest < level_of_look(look)
        naive |= smallest < 0.05
        interval = tests.confidence_interval(1 - level_of_look(look))
        outside |= (interval.low[:, 0] > 0) | (interval.high[:, 0] < 0)
        for draw in np.flatnonzero(smallest < 0.05)[:4]:
            names = {f"row{i}": values[:seeds] for i, values in enumerate(runs[draw])}
            shown = answer_of(results(names, looks=list(range(3, seeds, 3))))
            found = any(row.word != "not shown" for row in shown.others)
            assert found == (smallest[draw] < level_of_look(look))
    assert 0.03 < wrong.mean() < 0.05 and naive.mean() > 0.1
    assert 0.03 < outside.mean() < 0.05  # the intervals of a row cover 0 at all four looks


@pytest.mark.parametrize(("looks", "look"), [([], 1), ([3], 2), ([3, 5], 2), ([2, 3, 3], 3)])
def test_a_look_counts_once(looks: list[int], look: int) -> None:
    rng = np.random.default_rng(0)
    assert answer_of(results({name: rng.normal(size=5) for name in "ab"}, looks=looks)).look == look


def test_a_ruinous_term_is_worse_and_a_term_without_weight_is_not_shown() -> None:
    rng, right = np.random.default_rng(2), 0
    for _ in range(20):
        base = rng.normal(60, 3, 5)
        ruined = base - rng.normal(25, 4, 5)
        accuracies = {"byol": base, "nothing": base, "ruin": ruined}
        answer = answer_of(results({k: np.round(1.6 * v) / 1.6 for k, v in accuracies.items()}))
        nothing, ruin = answer.others
        assert nothing.verdict == "not shown; its runs equal those of byol; within 1 point"
        right += ruin.word == "worse"
        assert answer.take is None and answer.sentence().startswith("No row is shown to help. ")
    assert right >= 19


def test_equal_accuracies_of_other_runs_are_known_to_half_an_image() -> None:
    content = results({"a": [50.0] * 8, "b": [50.0] * 8})
    for run in content["runs"]:
        run |= {"data": {"val_images": 40}, "effective_rank": run["seed"] * (2 if run["row"] == "b" else 1)}
    (row,) = answer_of(content).others
    found = row.differences["linear_acc1"]
    assert (found.low, found.high, row.verdict) == (-1.25, 1.25, "not shown")
    for run in content["runs"]:
        run["data"]["val_images"] = 100
    assert answer_of(content).others[0].verdict == "not shown; within 1 point"


def test_of_a_failed_run_nothing_is_claimed() -> None:
    base = np.array([60.0, 61, 62, 63, 64])
    content = results({"a": base, "b": base + GAIN, "c": base + GAIN})
    assert words(content) == {"b": "better", "c": "better"}
    content["runs"][7]["linear_acc1"] = math.nan
    answer = answer_of(content)
    assert [row.verdict for row in answer.others] == [
        "not shown; failed with seed 7: nothing is claimed",
        "better",
    ]
    assert answer.others[0].runs == 4 and "b: not shown; failed with seed 7" in answer.sentence()
    assert answer.others[0].differences["linear_acc1"].mean == pytest.approx(9.5)
    content["runs"][0]["failed"] = "killed"
    assert words(content) == {"b": "not shown", "c": "not shown"}
    assert "a failed" in answer_of(content).others[1].verdict


def test_rows_without_all_seeds() -> None:
    base = np.array([60.0, 61, 62, 63, 64])
    content = results({"a": base, "b": (base + GAIN)[:4], "c": base + GAIN})
    assert words(content) == {"b": "unfinished", "c": "better"}
    # Without a plan, the pairs decide.
    paired = answer_of({**content, "planned_seeds": None}).others[0]
    assert paired.word == "better" and paired.differences["linear_acc1"].mean == 9.5
    (row,) = answer_of(results({"a": [90.0, 10.0], "b": [10.0, 90.0]})).others
    assert (row.means["linear_acc1"].low, row.means["linear_acc1"].high) == (0, 100)
    assert (row.differences["linear_acc1"].low, row.differences["linear_acc1"].high) == (-100, 100)
    alone = answer_of(results({"a": [60.0], "b": [70.0]}))
    assert alone.others[0].word == "not shown" and "give no interval" in alone.sentence()
    assert alone.table()[1][1][1:3] == ["not shown", "+10.0"]


def test_the_word_follows_knn_without_a_linear_probe() -> None:
    content = results({"a": [60.0, 61, 62, 63], "b": [70.1, 71, 72, 73]})
    for run in content["runs"]:
        run["knn_acc1"] = run.pop("linear_acc1")
    answer = answer_of(content)
    assert answer.primary == "knn_acc1" and answer.take == "b"
    assert answer.sentence().startswith("b is better than a by 10.0 points of k-NN accuracy (9.9 to 10.1)")


def test_without_labels_nothing_is_decided() -> None:
    content = results({"a": [60.0, 61, 62, 63], "b": [70.1, 71, 72, 73]})
    for run in content["runs"]:
        run |= {"rankme": run.pop("linear_acc1"), "alignment": 0.1 * run["seed"]}
    answer = answer_of(content)
    assert answer.measures == ("effective_rank", "rankme", "alignment") and answer.take is None
    assert answer.others[0].word == "unknown" and answer.others[0].differences["alignment"].mean == 0
    assert (
        "no labels" in answer.sentence() and "is 30.1 above that of a (+29.8 to +30.4)." in answer.sentence()
    )
    text = label_free(answer)
    assert "effective rank 0.45 (claim effective-rank-orders), RankMe 0.47 (claim rankme-orders)" in text
    outcomes = {each["name"]: each for each in json.loads(CLAIMS.read_text())["outcomes"]}
    for value, claim in TAUS.values():
        assert len(outcomes[claim]["rows"]) == 38
        (measured,) = outcomes[claim]["numbers"]
        assert value == pytest.approx(measured["mean"], abs=0.006)
    page = (CLAIMS.parents[1] / "claims.md").read_text()
    within = re.findall(r"[\w-]+-within", text)
    assert len(within) == 4
    for name in within:
        assert re.search(rf'^\| <a id="{name}">.*\| \*\*not shown here\*\* \|', page, re.MULTILINE)


def test_power() -> None:
    # Textbook: a paired t-test of half a standard deviation has 80 % power from 34 pairs on.
    assert smallest_difference(34, 1.0, 0.05) < 0.5 < smallest_difference(33, 1.0, 0.05)
    for seeds, level in ((3, 0.05), (5, level_of_look(1))):
        shift = smallest_difference(seeds, 2.0, level)
        draws = np.random.default_rng(3).normal(shift, 2.0, (40_000, seeds))
        assert np.mean(stats.ttest_1samp(draws, 0.0, axis=1).pvalue < level) == pytest.approx(0.8, abs=0.01)
    found = power_statement(480, 5)
    assert found.startswith("With 5 seeds only differences above about 5.4 points") and "480 val" in found
    assert "over 3 rows" in power_statement(480, 5, rows=3)
    assert "One seed gives no interval" in power_statement(480, 1)
    assert power_statement(20, 2).startswith("2 seeds can show no difference")


def test_the_assumed_spread_is_that_of_the_claims() -> None:
    spreads = [
        (each["high"] - each["low"]) / 2 * 8**0.5 / stats.t.ppf(0.975, 7)
        for outcome in json.loads(CLAIMS.read_text())["outcomes"]
        for each in outcome["numbers"]
        if re.fullmatch(r"linear accuracy of \w+ minus that of \w+", each["says"]) and "mean" in each
    ]
    assert len(spreads) == 27 and assumed_spread(480) == pytest.approx(np.median(spreads), abs=0.02)


def page_results(tmp_path: Path) -> dict[str, Any]:
    base = np.array([60.0, 61, 62, 63, 64])
    content = results({"byol": base, WEAK: base + GAIN - 6, "<b>x</b>": base - [30, 31, 30, 33, 30]})
    for run in content["runs"]:
        folder = tmp_path / f"{'weak' if run['row'] == WEAK else 'other'}{run['seed']}"
        folder.mkdir(exist_ok=True)
        terms = {"decorrelation": {"weight": 0.01}} if run["row"] == WEAK else {}
        config = {"backbone": {"name": "resnet18"}, "seed": run["seed"], "regularizers": {**terms, "k": 1}}
        (folder / "args.json").write_text(json.dumps({**config, **({} if terms else {"old": 1})}))
        run |= {
            "knn_acc1": run["linear_acc1"] - 5,
            "lid": 8.0,
            "checkpoint": str(folder / "last.ckpt"),
            "epochs": 2,
            "data": {"val_images": 160},
            "curves": {"effective_rank": {0: 3.0, 1: run["effective_rank"]}},
            "spectrum": [2.0, 1.0, 0.5],
            "verdict": {"kind": "healthy", "reason": f"of seed {run['seed']}."},
        }
    return content


def test_the_page(tmp_path: Path) -> None:
    content = page_results(tmp_path)
    content["rows"][WEAK]["title"] = "weak"
    answer = write_answer(content, tmp_path / "out")
    html, md = ((tmp_path / f"out/compare.{kind}").read_text() for kind in ("html", "md"))
    assert "weak is better than byol by 3.4 points of linear accuracy (2.6 to 4.2)" in answer.sentence()
    for text in (html, md):
        assert answer.sentence().split(";")[0][:60] in text
        for part in ("This is look 1", "of seed 5.", "5, 6, 7, 8, 9", "weight: 0.01", "# Remove: old"):
            assert part in text
    assert (
        "<b>x</b>" not in html
        and "http-equiv" in html
        and not re.search(r'(src|href)="http(?!s://arxiv)', html)
    )
    assert html.count("<img") == 4 + 2  # a forest for each measure, spectra and curves
    pictures = re.findall(r"\]\(([^)]*\.png)\)", md)
    assert len(pictures) == 6 and all((tmp_path / "out" / name).is_file() for name in pictures)
    saved = json.loads((tmp_path / "out/compare.json").read_text())
    assert (
        saved["take"] == WEAK
        and saved["rows"][2]["word"] == "worse"
        and saved["sentence"] == answer.sentence()
    )
    (code,) = re.findall(r"```yaml\n(.*?)```", md, re.DOTALL)
    assert yaml.safe_load(code) == {"regularizers": {"decorrelation": {"weight": 0.01}}}


def test_the_config_of_a_row_without_its_checkpoints() -> None:
    row = {
        "config": "byol",
        "overrides": ["+regularizers.ldreg={weight: 0.1, k: 8}", "~monitor", "max_epochs=3"],
    }
    code = changes_yaml(row, {"checkpoint": "/nowhere/a/b.ckpt"}, {})
    assert yaml.safe_load(code) == {"regularizers": {"ldreg": {"weight": 0.1, "k": 8}}, "max_epochs": 3}
    assert "# The row: byol +regularizers" in code and "# Remove: monitor" in code


def test_pages_without_a_better_row(tmp_path: Path) -> None:
    write_answer(results({"byol": [60.0, 63, 61], "other": [61.0, 60, 64]}), tmp_path)
    assert "None is shown to help, so keep byol." in (tmp_path / "compare.md").read_text()
    content = results({"byol": [60.0, 63, 61], "other": [61.0, 60, 64]})
    for run in content["runs"]:
        del run["linear_acc1"]
    write_answer(content, tmp_path / "free")
    page = (tmp_path / "free/compare.html").read_text()
    assert "no row can be recommended" in page and "(claim effective-rank-orders)" in page
