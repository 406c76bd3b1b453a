from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from solo_dimreg.errors import ConfigError
from solo_dimreg.studies.benchmark import run_suite
from solo_dimreg.studies.suites import SUITES


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
    table = [line for line in Path("results/report.md").read_text().splitlines() if line.startswith("|")]
    for line, row in zip(table[2:4], rows, strict=True):
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
    ran = Path("results/report.md").read_text().partition("## What ran")[2]
    for line in ("steps | 3", f"training data | {few_digits / 'train'}", "training images | 120"):
        assert f"| {line} |" in ran, ran
    for name in ("accuracy.png", "spectra.png", "curve-val_acc1.png"):
        assert Path("results", name).read_bytes().startswith(b"\x89PNG")
    assert "ldreg_simclr" in Path("results/report.html").read_text()


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
    from solo_dimreg.config.composing import compose
    from solo_dimreg.config.values import plain

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


@pytest.mark.slow
def test_rows_side_by_side_are_those_one_by_one(
    tmp_path: Path, few_digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    paths = [f"data.{split}_path={few_digits / split}" for split in ("train", "val")]
    arguments = (
        *("quick", Path("results"), 1, ["simclr", "bn"]),
        ["max_epochs=1", "optimizer.batch_size=32", "data.num_workers=0", *paths],
        ["max_epochs=1", "optimizer.batch_size=32"],
    )
    said: list[str] = []
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    together = run_suite(*arguments, jobs=2, say=said.append)
    assert said[0] == "2 runs, 2 at a time with 1 thread each" and said[-1].startswith("[2/2] ")
    assert [run["method"] for run in together["runs"]] == ["simclr", "bn"]
    again = run_suite(*arguments, jobs=2, say=said.append)
    assert again == together and "finished before" in said[-1]
    assert "Epoch 0" in Path("results/runs/bn/seed5/log.txt").read_text()
    torch.set_num_threads(1)
    try:
        alone = run_suite("quick", Path("alone"), *arguments[2:], say=said.append)
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(together["runs"], alone["runs"], strict=True):
        for name in ("linear_acc1", "knn_acc1", "effective_rank", "spectrum"):
            assert one[name] == other[name]


@pytest.mark.parametrize(
    ("pretraining", "probe", "message"),
    [
        ([], ["optimizer.name=foo"], "optimizer.name: Unknown"),
        ([], ["devices=foo"], "devices: 'foo'"),
        (["devices=foo"], [], "devices: 'foo'"),
        (["name=${nowhere}"], [], "name: "),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_trained(
    pretraining: list[str], probe: list[str], message: str, few_digits: Path, tmp_path: Path
) -> None:
    paths = [f"data.{split}_path={few_digits / split}" for split in ("train", "val")]
    with pytest.raises(ConfigError, match=message):
        run_suite("quick", tmp_path / "results", 1, ["simclr"], [*paths, *pretraining], probe)
    assert not [*tmp_path.rglob("*.ckpt")]
