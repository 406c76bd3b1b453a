"""Study files: what they may hold, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from solo_dimreg.config.folders import shipped_studies
from solo_dimreg.errors import ConfigError
from solo_dimreg.studies.study import Row, read_study, row_of

MINE = """
title: Mine
folder: digits
rows:
  plain: byol
  remedy: plain +regularizers.ldreg.weight=0.1
baseline: plain
questions:
  helps:
    sentence: It helps.
    numbers:
      - exceeds: {metric: linear_acc1, larger: remedy, smaller: plain}
"""


def written(folder: Path, text: str = MINE) -> Path:
    file = folder / "study.yaml"
    file.write_text(text)
    return file


def test_a_row_is_a_config_and_its_overrides() -> None:
    assert Row(**row_of("byol a.b=1 'c=\"x y\"'")).set == ["a.b=1", "'c=\"x y\"'"]
    assert Row(**row_of("byol name='a b'")).set == ["name='a b'"]


def test_a_row_starts_from_a_row_above_and_a_file_is_beside_the_study(tmp_path: Path) -> None:
    study = read_study(written(tmp_path, MINE.replace("plain: byol", "plain: my.yaml max_epochs=3")))
    assert study.rows["remedy"].config == str(tmp_path.resolve() / "my.yaml")
    assert study.rows["remedy"].set == ["max_epochs=3", "+regularizers.ldreg.weight=0.1"]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    for name in shipped_studies():
        study = read_study(name)
        file = tmp_path / f"{name}.yaml"
        file.write_text(study.as_yaml())
        assert read_study(file) == study.changed(variants={}, quick=[])


def test_the_claims_of_a_study_are_the_readers(tmp_path: Path) -> None:
    (claim,) = read_study(written(tmp_path)).claims()
    assert (claim.name, claim.paper, claim.rows) == ("helps", "Mine", ["plain", "remedy"])
    results = {"plain": {"linear_acc1": 50.0}, "remedy": {"linear_acc1": 52.5}}
    assert [number.of(results) for number in claim.numbers] == [2.5]


def test_a_part_of_a_study_is_a_study(tmp_path: Path) -> None:
    parts = [read_study("claims").asking(["decorrelation-none"]), read_study("quick").only(["bn", "byol"])]
    parts.append(read_study("evidence").asking(["collapse-diagnosed"]))
    parts.append(read_study(written(tmp_path)).changed(questions={}).only(["remedy"]))
    expected = ["none", "bn"], ["byol", "bn"], ["vicreg_weak", "none"], ["remedy"]
    for part, rows in zip(parts, expected, strict=True):
        assert list(part.rows) == rows and set(part.of_rows) <= set(rows) and part.baseline in ("", *rows)
        again = read_study(written(tmp_path, part.as_yaml()))
        assert again == part.changed(variants={}, quick=[])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("folder:", "foldr:", "foldr: unknown key (value 'digits'). Did you mean 'folder'?"),
        ("larger: remedy", "larger: remady", "questions.helps.numbers.0.exceeds: Unknown row 'remady'"),
        ("exceeds:", "excedes:", "Unknown kind of number 'excedes'. Did you mean 'exceeds'?"),
        ("linear_acc1", "linaer_acc1", "exceeds.metric: Unknown metric 'linaer_acc1'. Did you mean 'linear_"),
        (", smaller: plain", "", "exceeds.smaller: is missing; it must be there."),
        ("smaller:", "lesser:", "lesser: unknown key"),
        ("exceeds: {metric: linear_acc1, larger: remedy, smaller: plain}",
         "above: {metric: lid, row: plain, threshold: high}", "threshold: 'high' is not allowed; it must be"),
        *(
            ("exceeds: {metric: linear_acc1, larger: remedy, smaller: plain}",
             f"triggers: {{row: plain, limits: {limits}}}", f"numbers.0.triggers.limits{message}")
            for limits, message in (
                ("{mean_shar: 0.9}", ": Unknown share 'mean_shar'. Did you mean 'mean_share'?"),
                ("{mean_share: 2}", ".mean_share: 2 is not allowed; it must be a number above 0"),
                ("0.97", ": 0.97 is not a mapping of settings"),
            )
        ),
        ("baseline: plain", "baseline: plan", "baseline: Unknown row 'plan'. Did you mean 'plain'?"),
        ("baseline: plain", "of_rows: {plan: []}", "of_rows: Unknown row 'plan'"),
        ("    numbers:", "    beside: [plan]\n    numbers:", "questions.helps.beside: Unknown row 'plan'"),
        *(
            ("    numbers:", f"    chosen_on: {seeds}\n    numbers:",
             f"chosen_on: {seeds} is not allowed; it must be the first and the last seed, as [5, 12].")
            for seeds in ("7", "[7]", "[12, 5]", "[5, True]")
        ),
        ("baseline: plain", "seeds: 0", "seeds: 0 is not allowed; it must be a whole number >= 1"),
        ("baseline: plain", "data: digist", "data: 'digist' is not a folder. Unknown embedded data 'digist'"),
        ("baseline: plain", "probe: knnn", "probe: 'knnn' is not allowed"),
        ("  plain: byol", "  a b: byol\n  plain: byol", "rows: 'a b' is not allowed"),
        ("  plain: byol", "  pixels: byol\n  plain: byol", "rows: 'pixels' is the name of an experiment"),
        ("  plain: byol", "  plain: 3", "rows.plain: 3 is not allowed"),
        ("title: Mine", "title: [", "cannot be read as YAML"),
    ],
)  # fmt: skip
def test_a_fault_in_a_study_is_named_in_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in MINE
    with pytest.raises(ConfigError) as error:
        read_study(written(tmp_path, MINE.replace(old, new)))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_study_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"Unknown study 'quik'. Did you mean 'quick'\?"):
        read_study("quik")
