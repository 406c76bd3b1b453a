"""Pages of claims: what they say at any moment is what the outcomes are, from the first run to the last."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from solo_dimreg.errors import ConfigError
from solo_dimreg.files import locked
from solo_dimreg.solo_learn import register
from solo_dimreg.studies.claims.claim import Claim, Outcome, decide
from solo_dimreg.studies.claims.numbers import below, exceeds, ladder, rise, tau
from solo_dimreg.studies.claims.page import says
from solo_dimreg.studies.claims.pictures import main_plot
from solo_dimreg.studies.engine import _digest, configs_of
from solo_dimreg.studies.record import write_runs
from solo_dimreg.studies.study import read_study

SCRIPT = Path(__file__).parents[2] / "docs" / "hooks" / "claims.py"
spec = importlib.util.spec_from_file_location("claims_pages", SCRIPT)
assert spec and spec.loader
script = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = script
spec.loader.exec_module(script)
fill = script.fill

PAGE = """# Page
<!-- headlines -->
<!-- /headlines -->
Seen: [x](#up "verdict"), [x](#up "measured"), [x](#down "measured"), [x](#steps "measured 2"),
[as it is](#up).
<!-- claims -->
<!-- /claims -->
<!-- other -->
kept
<!-- /other -->
"""


def outcomes(seeds: int = 8) -> list[Outcome]:
    """Claims of every verdict, from runs whose numbers are known."""
    noise = np.random.default_rng(0).normal(0, 0.1, 8)
    levels = {"low": 10.0, "middle": 10.001, "high": 12.0}
    results: list[dict[str, Any]] = [
        {row: {"lid": level + (i + 1) * noise[seed] / 4} for i, (row, level) in enumerate(levels.items())}
        for seed in range(seeds)
    ]
    results += [{}] * (8 - seeds)

    def claim(name: str, numbers: list) -> Claim:
        rows = tuple({row for number in numbers for row in number.rows})
        return (
            Claim(name, name, "table 1", f"{name} is so.", "1 to 2", tuple(numbers), regime="8 steps")
            if rows
            else None
        )

    return decide(
        [
            claim("up", exceeds("lid", "high", "low")),
            claim("down", exceeds("lid", "low", "high")),
            claim("even", exceeds("lid", "middle", "low")),
            claim("steps", ladder("lid", ["low", "middle", "high"])),
        ],
        results,
    )


def known(seeds: int = 8, **values: Any) -> Any:
    told = [outcome.as_dict() | {"study": " --study x"} for outcome in outcomes(seeds)]
    return script.Known(told, ["up", "down"], "State.", **values)


def test_a_page_says_what_the_outcomes_are(tmp_path: Path) -> None:
    up, down, _, steps = outcomes()
    text = fill(PAGE, tmp_path / "page.md", known())
    assert "kept" in text and "[as it is](#up)" in text
    counted = (
        "4 claims of papers, on trained networks: 1 holds here, 2 are not shown here, 1 is opposite here."
    )
    assert f"{counted} State." in text
    mean, low, high = up.estimates[0].mean, up.estimates[0].low, up.estimates[0].high
    effect = f"+{mean:.1f} ({low:.1f} to {high:.1f})"
    assert f'[holds here: {effect}](#up "verdict"), [{effect}](#up "measured")' in text
    assert f"1. **Holds here**: [up is so.](#up) Measured: LID of high minus that of low: {effect}." in text
    assert f'[opposite here: −{effect[1:4]} (−{high:.1f} to −{low:.1f})](#down "measured")' in text
    assert f"[+{steps.estimates[1].mean:.1f} (" in text and steps.verdict == "not shown here"
    assert "| here (8 steps) |" in text and "`solo-dimreg claims even --study x`" in text
    assert down.verdict == "opposite here" and '<a id="down"></a>' in text
    assert fill(text, tmp_path / "page.md", known()) == text


def test_our_own_claims_and_those_without_a_training_are_counted_apart(tmp_path: Path) -> None:
    told = [each.as_dict() for each in outcomes()]
    asked, ours = told[1] | {"place": "our question"}, told[2] | {"paper": "The alarm of solo-dimreg"}
    here = [told[0], asked, ours, told[3] | {"rows": []}]
    text = fill(
        "<!-- headlines -->\n<!-- /headlines -->\n", tmp_path / "page.md", replace(known(), here=here)
    )
    for count in (
        "1 claim of papers, on trained networks: 1 holds here.",
        "1 claim that we ask and no paper makes: 1 is opposite here.",
        "1 claim of our alarm and diagnosis:",
        "1 claim without a training, such as formulas:",
    ):
        assert count in text


def test_the_readme_says_what_is_opposite_and_what_is_not_of_a_paper(tmp_path: Path) -> None:
    told = [each.as_dict() for each in outcomes()]
    here = [told[0] | {"rows": []}, told[1], told[2] | {"paper": "The alarm of solo-dimreg"}]
    shown = replace(known(), here=here, headlines=["up", "even"])
    text = fill("<!-- verdicts -->\n<!-- /verdicts -->\n", tmp_path / "page.md", shown)
    assert "- **Holds here**: up is so (no training)." in text
    assert "- **Not shown here**: even is so (our own rule)." in text
    assert "- **Opposite here**: down is so." in text  # which is no headline
    asked = replace(shown, here=[told[1] | {"place": "our question"}, told[2]], headlines=["even"])
    assert "down" not in fill("<!-- verdicts -->\n<!-- /verdicts -->\n", tmp_path / "page.md", asked)


def test_the_page_says_how_long_trainings_took_and_which_are_not_at_rest(tmp_path: Path) -> None:
    runs = [run("a", seed, 40) | {"environment": {"processor": "AVX2"}} for seed in (5, 6, 7)]
    runs = [
        each | {"pretrain_seconds": 60.0 * seconds} for each, seconds in zip(runs, (1, 2, 9), strict=True)
    ]
    curve = {epoch: 50.0 + epoch for epoch in range(6)}  # 54 before the last fifth, 55 at its end
    runs[0] |= {"row": "b", "curves": {"val_acc1": curve, "effective_rank": dict.fromkeys(range(6), 8.0)}}
    runs.append(runs[0] | {"pretrain_seconds": None})
    block = "<!-- trainings -->\n<!-- /trainings -->\n"
    assert "The numbers follow with the trainings." in fill(block, tmp_path / "page.md", script.Known([]))
    text = fill(block, tmp_path / "page.md", script.Known([], runs=runs))
    assert (
        "On AVX2, 3 timed trainings took 1 to 9 minutes of a core, 2 in the median and 0 hours in all."
        in text
    )
    assert "changes the online accuracy by, in percent: b +1.9." in text
    assert "changes the effective rank by, in percent: less than 1." in text
    many = [each | {"row": f"{i:02}", "curves": runs[0]["curves"]} for i, each in enumerate(runs * 3)]
    text = fill(block, tmp_path / "page.md", script.Known([], runs=many))
    assert "in percent: 00 +1.9, 01 +1.9," in text and "09 +1.9 and 2 more." in text


@pytest.mark.parametrize("seeds", [0, 1, 3])
def test_before_all_seeds_are_done_nothing_is_claimed(tmp_path: Path, seeds: int) -> None:
    text = fill(PAGE, tmp_path / "page.md", known(seeds))
    assert "4 claims of papers, on trained networks: 4 are unfinished." in text
    assert f'[unfinished, {seeds} of 8 seeds](#up "measured")' in text
    assert not any(word in text for word in ("holds here", "not shown here", "opposite here", "Measured:"))


def test_pages_of_other_outcomes_and_broken_links(tmp_path: Path) -> None:
    early = [outcomes()[0].as_dict() | {"name": "before", "unit": "points"}]
    page = tmp_path / "page.md"
    text = '[x](docs/early.md#before "measured")\n<!-- early -->\n<!-- /early -->\n'
    filled = fill(text, page, known(early=early))
    assert " points (" in filled and "`solo-dimreg claims before`" in filled
    with pytest.raises(ConfigError, match="there is no outcome of 'up'"):
        fill('[x](docs/early.md#up "measured")\n', page, known(early=early))


def test_a_formula_alone_is_contradicted() -> None:
    (number,) = exceeds("x", "a", "b")
    formula = Claim("f", "P", "", "", "", (replace(number, rows=("pixels",)),))
    results = [{"a": {"x": 0.0}, "b": {"x": 1.0}, "pixels": {}}] * 8
    assert says(decide([formula], results)[0].as_dict()).startswith("contradicted: −1.0")


def run(row: str, seed: int, metric: float) -> dict[str, Any]:
    curve = {epoch: metric * (epoch + 1) / 4 for epoch in range(4)}
    return {
        "row": row,
        "seed": seed,
        "method": row,
        "epochs": 4,
        "steps": 480,
        "linear_acc1": metric,
        "rankme": metric,
        "curves": dict.fromkeys(("val_acc1", "effective_rank", "mutual_information", "adadim_alpha"), curve),
    }


def test_each_kind_of_claim_has_its_picture() -> None:
    rows = ("simclr", "adadim", "vicreg")
    results = [
        {row: run(row, seed, 40 + seed + place) for place, row in enumerate(rows)} for seed in range(3)
    ]

    def drawn(numbers: list, count: int = 3) -> Any:
        used = [
            replace(each, rows=each.rows or rows[:1], metrics=each.metrics or ("adadim_alpha",))
            for each in numbers
        ]
        claim = Claim("x", "AdaDim", "", "", "", tuple(used))
        return main_plot(decide([claim], results[:count])[0], results[:count])

    pair = [replace(each, metrics=("linear_acc1",)) for each in exceeds("linear_acc1", "adadim", "simclr")]
    assert drawn(pair).figure.axes[0].get_ylabel() == "online accuracy,\ndifference (points)"
    assert drawn(pair, 1) is None
    curves = drawn([replace(each, rows=rows) for each in rise("simclr", "adadim_alpha", 0, 1)])
    titles = [axes.get_title() for axes in curves.figure.axes]
    assert titles == ["H(R), effective rank", "I(R;Z), nats", "alpha (AdaDim)"]
    assert list(curves.figure.axes[0].lines[0].get_xdata()) == [120, 240, 360, 480]
    (number,) = below("effective_rank", "simclr", 2)
    alone = [replace(number, rows=("simclr",), metrics=("effective_rank",))]
    healthy = replace(Claim("x", "P", "", "", "", tuple(alone)), beside=("vicreg",))
    (panel,) = main_plot(decide([healthy], results)[0], results).figure.axes
    assert max(max(line.get_ydata()) for line in panel.lines) == 44  # of vicreg, which no number needs
    assert list(panel.lines[-1].get_ydata()) == [2, 2] and panel.get_ylim()[0] == 1  # the limit
    accuracy = replace(number, rows=("simclr",), metrics=("linear_acc1",))
    (curve,) = (replace(each, metrics=("mutual_information",)) for each in rise("simclr", "lid", 0, 1))
    other = replace(healthy, numbers=(accuracy, replace(curve, rows=("simclr",))))
    axes = main_plot(decide([other], results)[0], results).figure.axes
    assert len(axes) == 3 and {each.get_yscale() for each in axes} == {"linear"}  # no panel has its limit
    (panel,) = main_plot(decide([replace(healthy, seeds=2)], results)[0], results).figure.axes
    assert (
        max(max(line.get_ydata()) for line in panel.lines) == 43
    )  # of the second seed, the last that counts
    probed = [
        {row: {**each, "ridge_acc1": 2 * each["linear_acc1"]} for row, each in seed.items()}
        for seed in results
    ]
    digits = [replace(each, metrics=("ridge_acc1",)) for each in exceeds("ridge_acc1", "adadim", "simclr")]
    claim = replace(
        Claim("x", "P", "", "", "", tuple(digits)), beside=("simclr", "vicreg", "not trained yet")
    )
    failed = [*probed, {"vicreg": {"method": "vicreg", "failed": "The loss is not finite."}}]
    (panel,) = main_plot(decide([claim], probed)[0], failed).figure.axes
    assert [list(line.get_ydata()) for line in panel.lines[:3]] == [[80, 84, 82], [82, 86, 84], [84, 88, 86]]
    means = [line.get_ydata()[0] for line in panel.lines[3:] if line.get_marker() == "o"]
    assert means == [82, 86, 84] and panel.get_ylabel() == "ridge accuracy (%)"
    assert [label.get_text() for label in panel.get_xticklabels()] == ["simclr", "vicreg", "adadim"]
    order = [replace(each, rows=rows, metrics=("rankme", "linear_acc1")) for each in tau("rankme", rows)]
    (points,) = drawn(order).figure.axes[0].lines
    assert sorted(points.get_xdata()) == sorted(seed[row]["rankme"] for seed in results for row in rows)


def test_what_a_choice_without_labels_loses_stands_beside_its_taus(tmp_path: Path) -> None:
    methods = [[f"{method}_{i}" for i in range(4)] for method in ("simclr", "byol")]
    ranks, accuracies = [1.0, 2.0, 3.0, 4.0], [50.0, 60.0, 62.0, 61.0]
    order = {"simclr": 1, "byol": -1}  # byol's largest rank has the lowest accuracy
    seed = {
        row: {"rankme": rank, "linear_acc1": accuracy}
        for rows in methods
        for row, rank, accuracy in zip(rows, ranks, accuracies[:: order[rows[0][:-2]]], strict=True)
    }
    numbers = [each for rows in methods for each in tau("rankme", rows, settings=True)]
    claim = Claim("rankme-within", "P", "", "", "", tuple(numbers))
    decided = decide([claim], [seed, seed])
    lost = script.lost(decided, [seed, seed, {}])
    assert lost == {"rankme-within": [62 - 61, 62 - 50]}
    early = {**known().here[0], "name": "rankme-orders"}
    page = "<!-- label_free -->\n<!-- /label_free -->\n"
    told = [outcome.as_dict() for outcome in decided]
    text = fill(page, tmp_path / "claims.md", script.Known(told, early=[early], lost=lost))
    (line,) = (line for line in text.splitlines() if "rankme" in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[0] == "[rankme-within](#rankme-within)" and cells[4] == "1.0, 12.0"
    assert cells[1].startswith("+0.67 (") and cells[2].startswith("−0.67 (") and "−" not in cells[3]
    assert script.lost(decide([claim], [seed, {}]), [seed, {}]) == {}
    failed = seed | {"byol_0": {"failed": "The loss is not finite."}}
    assert np.isnan(script.lost(decide([claim], [failed] * 2), [failed] * 2)["rankme-within"][1])
    unknown = [
        {**outcome, "numbers": [{**each, "mean": None} for each in outcome["numbers"]]} for outcome in told
    ]
    text = fill(page, tmp_path / "claims.md", script.Known(unknown, early=[early], lost=lost))
    assert "| [rankme-within](#rankme-within) | not known | not known | " in text
    link = '[](claims.md#rankme-within "verdict{}")'
    text = fill(link.format("") + link.format(" 2"), tmp_path / "page.md", script.Known(unknown))
    assert re.findall(r"\[([^\]]*)\]", text) == ["not shown here: not known", "not known"]


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[Path, Path]:
    """A study of two rows, and a record whose digests are its own: all seeds, some again, and stale ones."""
    study = {
        "folder": "digits",
        "seeds": 2,
        "rows": {"a": "simclr", "b": "simclr optimizer.lr=0.01"},
        "headlines": ["x"],
        "questions": {
            "x": {
                "sentence": "So.",
                "unit": "points",
                "numbers": (
                    numbers := [{"exceeds": {"metric": "linear_acc1", "larger": "a", "smaller": "b"}}]
                ),
            },
            "y": {"sentence": "Tuned.", "chosen_on": [4, 6], "numbers": numbers},
        },
    }
    file = tmp_path / "small.yaml"
    file.write_text(json.dumps(study))
    read = read_study(file)
    configs = {row: configs_of(read, row, 5, tmp_path) for row in read.rows}
    ours, other = register().generation, "another"

    def line(row: str, seed: int, gain: float, digest: str = "", **environment: str) -> tuple[tuple, dict]:
        digest = digest or _digest(read, configs, row, seed)
        ran = {"solo-learn": f"{ours} 1", "processor": "AVX512", **environment}
        metric = 40 + seed + (gain + seed / 100 if row == "a" else 0)
        return (row, seed, digest), {**run(row, seed, metric), "digest": digest, "environment": ran}

    def lines(seeds: list[int], gain: float, **values: str) -> dict:
        return dict(line(row, seed, gain, **values) for row in "ab" for seed in seeds)

    runs = lines([5, 6], 9) | lines([13], 9) | lines([100, 101], 9)
    runs |= lines([5, 6], -9, digest="other", **{"solo-learn": f"{other} 2"})
    data = tmp_path / "docs" / "data"
    write_runs(data / "evidence.jsonl", runs | lines([14], -9, digest="stale"))
    write_runs(data / "evidence-avx2.jsonl", lines([5, 6], 9, processor="AVX2"))
    early = replace(outcomes()[0].claim, name="before")
    (data / "claims.json").write_text(json.dumps({"outcomes": [decide([early], [])[0].as_dict()]}))
    (tmp_path / "README.md").write_text("<!-- verdicts -->\n<!-- /verdicts -->\n")
    page = tmp_path / "docs" / "page.md"
    page.write_text(PAGE.partition("Seen")[0] + "<!-- claims -->\n<!-- /claims -->\n")
    return file, page


def test_the_whole_page_from_a_record(recorded: tuple[Path, Path], tmp_path: Path) -> None:
    file, page = recorded
    picture = page.parent / "images" / "claims" / "x.png"
    with locked("--out", tmp_path / "results" / "small"):  # as if the study were training
        script.main(tmp_path, str(file))
    text = page.read_text()
    measured = "linear accuracy of a minus that of b: +9.1 points (9.0 to 9.1)"
    assert f"1. **Holds here**: [So.](#x) Measured: {measured}. Published" in text
    again = ("unfinished, 1 of 2 seeds (seed 13)", "opposite here (another solo-learn)", "holds here (AVX2)")
    (row,) = re.findall(r'^\| <a id="x">.*\| \*\*holds here\*\* \| (.*) \| `', text, re.MULTILINE)
    assert sorted(row.split("; ")) == sorted(again)
    assert "4 of 4 trainings are finished (solo-learn " in text and "processor AVX512)" in text
    assert picture.read_bytes().startswith(b"\x89PNG") and "(images/claims/x.png)" in text
    assert "- **Holds here**: So." in (tmp_path / "README.md").read_text()
    # The setting of the second claim was chosen on seeds that decide: it has no verdict but on others.
    (row,) = re.findall(r'^\| <a id="y">.*\| \*\*chosen on these seeds\*\* \| (.*) \| `', text, re.MULTILINE)
    assert row == "unfinished, 1 of 2 seeds (seed 13)" and "1 is chosen on these seeds." in text
    assert "Tuned." in (tmp_path / "results" / "small" / "claims.html").read_text()
    # From an empty record, the page says so, and has no picture.
    for record in (page.parent / "data").glob("*.jsonl"):
        record.unlink()
    script.main(tmp_path, str(file))
    text = page.read_text()
    assert '"y"></a>' in text and "| **unfinished, 0 of 2 seeds** |" in text
    assert "0 of 4 trainings are finished." in text and "**Unfinished, 0 of 2 seeds**: [So.](#x)" in text
    assert not picture.exists() and "images" not in text
    assert "- **Not yet known**: So." in (tmp_path / "README.md").read_text()


def test_a_headline_is_a_question(recorded: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="headlines: Unknown claim 'z'"):
        read_study(recorded[0]).changed(headlines=["z"]).checked()
