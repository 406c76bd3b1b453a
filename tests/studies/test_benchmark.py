"""The engine: a study end to end, its runs side by side, and what is refused before a training."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from support import until

import solo_dimreg
from solo_dimreg.config.folders import shipped_studies
from solo_dimreg.config.values import plain
from solo_dimreg.errors import ConfigError
from solo_dimreg.reports.comparison import write_report
from solo_dimreg.studies.engine import configs_of, looks_of, run_study, seeds_of
from solo_dimreg.studies.study import Row, Study, read_study

SMALL = ["max_epochs=1", "optimizer.batch_size=32", "data.num_workers=0"]
LINEAR = ["max_epochs=1", "optimizer.batch_size=32"]
BENCHMARKS = [name for name in shipped_studies() if name not in ("claims", "evidence", "sprites")]


def paths(images: Path) -> list[str]:
    return [f"data.{split}_path={images / split}" for split in ("train", "val")]


def small(rows: list[str], images: Path, *overrides: str) -> Study:
    study = read_study("quick").only(rows)
    return study.changed(seeds=1, overrides=[*SMALL, *paths(images), *overrides], linear=LINEAR)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, few_digits: Path) -> tuple[Study, Path, dict]:
    """Two rows, trained for one epoch."""
    out = tmp_path_factory.mktemp("a study") / "results"
    rows = small(["simclr", "ldreg_simclr"], few_digits)
    return rows, out, run_study(rows, out)


def test_end_to_end_on_a_slice_of_the_digits(study: tuple[Study, Path, dict], few_digits: Path) -> None:
    """Pretrains one epoch, evaluates, and reads the table."""
    ours, out, results = study
    write_report(out, out)
    written = json.loads((out / "results.json").read_text())
    assert written == json.loads(json.dumps(results))
    assert (written["baseline"], written["seeds"], written["planned_seeds"]) == ("simclr", [5], [5])
    assert written["rows"]["ldreg_simclr"]["config"] == "ldreg_simclr"
    table = [line for line in (out / "report.md").read_text().splitlines() if line.startswith("|")]
    for line, row in zip(table[2:4], ours.rows, strict=True):
        method, seeds, *figures, time = [cell.strip() for cell in line.strip("|").split("|")]
        assert (method, seeds) == (row, "1") and time.endswith(" s")
        assert len(figures) == 5 and all(math.isfinite(float(figure)) for figure in figures)
    assert "method_kwargs" not in "".join(table) and "| regularizers.ldreg.k | – |" in "".join(table)
    for run in results["runs"]:
        assert run["environment"]["torch"] == torch.__version__ and run["finished"].endswith("UTC")
        # 120 images in batches of 32.
        assert run["steps"] == 3 and run["data"]["train_images"] == 120 and run["data"]["val_images"] == 40
        assert run["linear_acc5"] >= run["linear_acc1"]
        assert len(run["spectrum"]) == 256 and run["spectrum"] == sorted(run["spectrum"], reverse=True)
        assert run["row"] == run["method"] and list(run["curves"]["effective_rank"]) == [0]
        assert run["verdict"]["kind"] and run["verdict"]["reason"]
    ran = (out / "report.md").read_text().partition("## What ran")[2]
    for line in ("steps | 3", f"training data | {few_digits / 'train'}", "training images | 120"):
        assert f"| {line} |" in ran, ran
    for name in ("accuracy.png", "spectra.png", "curve-val_acc1.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert "ldreg_simclr" in (out / "report.html").read_text()


def test_a_study_beside_uses_the_same_run(study: tuple[Study, Path, dict]) -> None:
    """It is found by its settings, so that what is compared is never another training."""
    ours, out, results = study
    said: list[str] = []
    # Another name and title, and settings given by the row instead of by the command line.
    rows = {"simclr": Row(config="digits/simclr", set=ours.overrides)}
    other = Study(name="mine", rows=rows, seeds=1, linear=LINEAR, folder="digits")
    again = run_study(other, out.parent / "mine", say=said.append)
    assert again["runs"][0] == results["runs"][0] and "finished before" in said[-1]
    assert not list((out.parent / "mine").rglob("*.ckpt"))


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name != "quick"])
def test_missing_data_says_what_to_put_where(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        run_study(read_study(name), tmp_path / "results")
    assert "datasets/" in str(error.value) and name.lower() in str(error.value).lower()
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_rows_differ_from_their_baseline_only_in_what_is_compared(name: str, tmp_path: Path) -> None:
    """The same backbone, data, optimizer, schedule and length for all rows that share a base."""
    study = read_study(name)
    configs = {row: plain(configs_of(study, row, 5, tmp_path)[0]) for row in study.rows}
    for pair in (("simclr", "ldreg_simclr"), ("byol", "ldreg_byol"), ("infonce", "directclr")):
        first, second = (dict(configs[each]) for each in pair)
        assert (first["name"], second["name"]) == pair
        for config in (first, second):
            for key in ("name", "method", "regularizers"):
                config.pop(key, None)
            if "directclr" in pair:
                config.pop("method_kwargs")
        assert first == second, pair
    if name == "quick":
        assert len({config["max_epochs"] for config in configs.values()}) == 1
        assert len({config["backbone"]["name"] for config in configs.values()}) == 1


@pytest.mark.slow
def test_rows_side_by_side_are_those_one_by_one(
    tmp_path: Path, few_digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    study = small(["simclr", "bn"], few_digits, "data.num_workers=1")
    said: list[str] = []
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    together = run_study(study, Path("results"), 2, said.append)
    assert said[0] == "2 runs, 2 at a time with 1 thread each" and said[-1].startswith("[2/2] ")
    assert [run["method"] for run in together["runs"]] == ["simclr", "bn"]
    again = run_study(study, Path("results"), 2, said.append)
    # The second command comes after a look at the first one's results.
    assert again | {"looked": {}} == together and "finished before" in said[-1]
    assert "Epoch 0" in Path("results/runs/bn/seed5/log.txt").read_text()
    torch.set_num_threads(1)
    try:
        alone = run_study(study, Path("elsewhere/alone"), 1, said.append)
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(together["runs"], alone["runs"], strict=True):
        for name in ("linear_acc1", "knn_acc1", "effective_rank", "spectrum"):
            assert one[name] == other[name]


WORKERS = """
import os, sys, time
from functools import partial
from pathlib import Path
from solo_dimreg.studies.workers import local

def work(row, seed):
    Path(row).write_text(str(os.getpid()))
    time.sleep(60)  # longer than the test, which ends it

if __name__ == "__main__":
    list(local(work, [("a", 1), ("b", 1)], Path("out"), 2, print))
"""


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """Otherwise they would train on, beside those of the same command started again."""
    (tmp_path / "script.py").write_text(WORKERS)
    top = str(Path(solo_dimreg.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([top, os.environ.get("PYTHONPATH", "")])}
    parent = subprocess.Popen([sys.executable, "script.py"], cwd=tmp_path, env=environment)
    files = [tmp_path / "a", tmp_path / "b"]
    until(lambda: all(file.is_file() and file.read_text() for file in files), parent)
    workers = [int(file.read_text()) for file in files]
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 50  # before the workers would end by themselves
    while any(Path("/proc", str(each)).exists() for each in workers) and time.monotonic() < deadline:
        time.sleep(0.05)  # between looks: they are no children, for which one could wait
    assert not any(Path("/proc", str(each)).exists() for each in workers)


def test_a_training_that_diverges_is_a_result(tmp_path: Path, few_digits: Path) -> None:
    study = small(["simclr"], few_digits, "optimizer.lr=1e30", "+divergence.patience=1")
    said: list[str] = []
    (run,) = run_study(study, tmp_path / "results", say=said.append)["runs"]
    assert "finite" in run["failed"] and (run["row"], run["seed"]) == ("simclr", 5)
    run_study(study, tmp_path / "results", say=said.append)
    assert "finished before" in said[-1]
    assert "simclr" in write_report(tmp_path / "results", tmp_path).read_text()


def finished(rows: str, seeds: int, out: Path, runs: int | None = None, **more: object) -> Study:
    """Write the results of a comparison, by default with all runs, and return its study."""
    study = Study(rows={row: Row(config=f"digits/{row}") for row in rows}, seeds=seeds)
    looked = looks_of(study, seeds, out)
    content = {"planned_seeds": seeds_of(study, out), "rows": dict.fromkeys(rows), **looked, **more}
    content["runs"] = [{}] * (len(rows) * seeds if runs is None else runs)
    (out / "results.json").write_text(json.dumps(content))
    return study


def test_seeds_are_added_to_a_finished_comparison(tmp_path: Path) -> None:
    study = Study(rows={"a": Row(config="digits/byol")}, seeds=2)
    with pytest.raises(ConfigError, match="no finished comparison to add seeds to"):
        seeds_of(study, tmp_path, 3)
    assert seeds_of(study, tmp_path) == [5, 6]
    finished("ab", 2, tmp_path)
    assert seeds_of(study, tmp_path, 3) == [5, 6, 7, 8, 9]
    # The same command again continues what it began.
    finished("ab", 5, tmp_path, runs=7)
    assert seeds_of(study, tmp_path, 3) == [5, 6, 7, 8, 9]


def test_every_look_at_a_finished_comparison_is_counted(tmp_path: Path) -> None:
    study = finished("ab", 2, tmp_path, runs=3)
    assert looks_of(study, 5, tmp_path)["looks"] == []  # it was interrupted
    study = finished("ab", 2, tmp_path)
    # However more seeds are asked for, and while their runs are not finished.
    assert looks_of(study, 5, tmp_path)["looks"] == [2]
    study = finished("ab", 5, tmp_path, runs=4)
    assert looks_of(study, 5, tmp_path)["looks"] == [2]
    study = finished("ab", 5, tmp_path)
    # Fewer seeds are an earlier look, and do not forget the later one.
    assert looks_of(study, 2, tmp_path)["looks"] == []
    study = finished("ab", 2, tmp_path)
    assert looks_of(study, 8, tmp_path)["looks"] == [2, 5]


def test_rows_that_are_added_after_a_look_are_named(tmp_path: Path) -> None:
    finished("ab", 2, tmp_path)
    study = finished("abc", 4, tmp_path)
    found = looks_of(study, 4, tmp_path)
    assert (found["looks"], found["added"]) == ([2], ["c"])
    # With the baseline alone it is a comparison of its own.
    alone = study.only(["a", "c"])
    assert (looks_of(alone, 4, tmp_path)["looks"], looks_of(alone, 4, tmp_path)["added"]) == ([], [])
    # The others are not forgotten, although its results are written over theirs.
    finished("ac", 4, tmp_path)
    assert looks_of(study, 6, tmp_path)["looked"] == {"a": [2, 4], "b": [2, 4], "c": [4]}


@pytest.mark.parametrize(
    ("pretraining", "probe", "message"),
    [
        ([], ["optimizer.name=foo"], "simclr: optimizer.name: Unknown"),
        ([], ["devices=foo"], "devices: 'foo'"),
        (["devices=foo"], [], "devices: 'foo'"),
        (["name=${nowhere}"], [], "name: "),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_trained(
    pretraining: list[str], probe: list[str], message: str, few_digits: Path, tmp_path: Path
) -> None:
    study = read_study("quick").only(["simclr"])
    study = study.changed(overrides=[*paths(few_digits), *pretraining], linear=probe)
    with pytest.raises(ConfigError, match=message):
        run_study(study, tmp_path / "results")
    assert not [*tmp_path.rglob("*.ckpt")]
