"""The figure of a collapse being caught: its configs, its alarm, and what it draws of docs/data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from solo_dimreg.reports.run_files import read_curves
from solo_dimreg.studies.caught import COLUMNS, LABELS, STUDY, alarm_step, draw_caught
from solo_dimreg.studies.engine import configs_of

CONTENT = json.loads((Path(__file__).parents[2] / "docs" / "data" / "caught.json").read_text())


@pytest.mark.parametrize("row", STUDY.rows)
def test_a_row_is_a_training_with_the_alarm(row: str, tmp_path: Path) -> None:
    settings, _ = configs_of(STUDY, row, 5, tmp_path)
    assert settings.method == "simsiam" and settings.monitor.alarm == {}
    assert (settings.get("regularizers") is not None) == (row == "remedy")


def test_the_numbers_are_of_these_rows() -> None:
    assert list(CONTENT["rows"]) == list(STUDY.rows) == list(LABELS)
    assert CONTENT["settings"] == STUDY.settings
    for name, row in STUDY.rows.items():
        assert CONTENT["rows"][name]["changes"] == row.set


def test_the_alarm_triggers_at_the_third_look_below_a_fifth_of_the_peak() -> None:
    assert alarm_step([100, 19, 19, 19]) == 60
    assert alarm_step([100, 19, 21, 19, 18, 17]) == 90
    assert alarm_step([100, 21, 22, 23]) is None
    for row in CONTENT["rows"].values():
        assert alarm_step(row["effective_rank"]) == row["alarm"]


def test_parts_of_an_interrupted_run_are_joined(tmp_path: Path) -> None:
    for part, first in (("a", 0), ("b", 2)):
        (tmp_path / part).mkdir()
        lines = [f"{first + i},,-0.{first + i},{100 - first - i}\n{first + i},0.5,,\n" for i in range(2)]
        header = "epoch,train_acc1_step,train_neg_cos_sim_epoch,dimensionality/effective_rank\n"
        (tmp_path / part / "metrics.csv").write_text(header + "".join(lines))
    found = read_curves([tmp_path / "a", tmp_path / "b"], COLUMNS)
    assert found == {
        "loss": {0: -0.0, 1: -0.1, 2: -0.2, 3: -0.3},
        "effective_rank": {0: 100, 1: 99, 2: 98, 3: 97},
    }


def test_the_figure_shows_the_curves_and_the_alarm() -> None:
    figure: Any = draw_caught(CONTENT["rows"])
    loss, rank = figure.axes
    for axes, column in ((loss, "loss"), (rank, "effective_rank")):
        drawn = [list(line.get_ydata()) for line in axes.lines if len(line.get_ydata()) > 1]
        assert drawn == [row[column] for row in CONTENT["rows"].values()]
    (mark,) = (line for line in rank.lines if len(line.get_ydata()) == 1)
    row = CONTENT["rows"]["high_rate"]
    assert list(mark.get_xdata()) == [row["alarm"]]
    assert list(mark.get_ydata()) == [row["effective_rank"][row["alarm"] // 15 - 1]]
