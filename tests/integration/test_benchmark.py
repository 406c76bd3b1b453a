from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from solo_dimreg.benchmark import SUITES, results_table, run_suite, summarize
from solo_dimreg.errors import ConfigError


def test_end_to_end_on_a_slice_of_the_digits(
    tmp_path: Path, few_digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pretrains one epoch, evaluates, and reads the table."""
    monkeypatch.chdir(tmp_path)
    rows = ["simclr", "ldreg_simclr"]
    paths = [f"data.{split}_path={few_digits / split}" for split in ("train", "val")]
    small = ["max_epochs=1", "optimizer.batch_size=32", "data.num_workers=0", *paths]
    results = run_suite("quick", Path("results"), 1, rows, small, ["max_epochs=1", "optimizer.batch_size=32"])
    assert json.loads(Path("results/results.json").read_text()) == results
    table = [line for line in Path("results/results.md").read_text().splitlines() if line.startswith("|")]
    assert len(table) == 4
    for line, row in zip(table[2:], rows, strict=True):
        method, seeds, *figures = [cell.strip() for cell in line.strip("|").split("|")]
        assert (method, seeds) == (row, "1")
        assert len(figures) == 5 and all(math.isfinite(float(figure)) for figure in figures)
    for run in results["runs"]:
        assert len(run["spectrum"]) == 512 and run["spectrum"] == sorted(run["spectrum"], reverse=True)
    for name in ("accuracy.png", "spectra.png"):
        assert Path("results", name).read_bytes().startswith(b"\x89PNG")


def test_summary_over_seeds_is_mean_and_sample_deviation() -> None:
    runs = [
        {
            "method": "m",
            "linear_acc1": a,
            "knn_acc1": 2 * a,
            "effective_rank": 3.0,
            "lid": 4.0,
            "z_correlation": 0.5,
        }
        for a in (1.0, 2.0, 6.0)
    ]
    (line,) = summarize(runs)
    assert line["seeds"] == 3 and line["linear_acc1"] == 3 and line["effective_rank_std"] == 0
    assert line["linear_acc1_std"] == pytest.approx(math.sqrt(7))
    _, (cells,) = results_table([line])
    assert cells == ["m", "3", "3.00 ± 2.65", "6.00 ± 5.29", "3.00 ± 0.00", "4.00 ± 0.00", "0.50 ± 0.00"]


@pytest.mark.parametrize("name", [name for name in SUITES if name != "quick"])
def test_missing_data_says_what_to_put_where(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        run_suite(name, tmp_path / "results")
    assert "datasets/" in str(error.value) and name.lower() in str(error.value).lower()
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("name", SUITES)
def test_rows_differ_from_their_baseline_only_in_what_is_compared(name: str) -> None:
    """The same backbone, data, optimizer, schedule and length for all rows that share a base."""
    from solo_dimreg.hosts import plain
    from solo_dimreg.settings import compose

    suite = SUITES[name]
    configs = {
        row.name: plain(compose("pretrain", suite.folder, row.config, (*suite.overrides, *row.overrides)))
        for row in suite.rows
    }
    for pair in (("simclr", "ldreg_simclr"), ("byol", "ldreg_byol"), ("infonce", "directclr")):
        first, second = (dict(configs[each]) for each in pair)
        for config in (first, second):
            for key in ("name", "method", "regularizers"):
                config.pop(key, None)
            if "directclr" in pair:
                config.pop("method_kwargs")
        assert first == second, pair
    if name == "quick":
        assert len({config["max_epochs"] for config in configs.values()}) == 1
        assert len({config["backbone"]["name"] for config in configs.values()}) == 1
