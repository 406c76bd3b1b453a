"""The record of finished runs: none is trained twice, whatever folder or machine it was trained in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from solo_dimreg.errors import ConfigError
from solo_dimreg.studies.claims.page import by_seed, write_outcomes
from solo_dimreg.studies.engine import run_study
from solo_dimreg.studies.record import LOOKS, compact, digest_of, read_runs, write_runs
from solo_dimreg.studies.study import read_study


def test_a_digest_tells_settings_and_not_machines() -> None:
    config = OmegaConf.create({"seed": 5, "devices": "1", "optimizer": {"lr": 0.1}, "accelerator": "cpu"})
    same = OmegaConf.create({"seed": 5, "devices": "4", "optimizer": {"lr": 0.1}, "accelerator": "gpu"})
    other = OmegaConf.create({"seed": 5, "devices": "1", "optimizer": {"lr": 0.2}, "accelerator": "cpu"})
    assert digest_of(["published"], config) == digest_of(["published"], same)
    assert len({digest_of(["published"], config), digest_of(["current"], config)}) == 2
    assert digest_of(["published"], config) != digest_of(["published"], other)


def test_what_is_kept_is_small_and_reads_back(tmp_path: Path) -> None:
    curve = {epoch: 1.0 + epoch / 3 for epoch in range(200)}
    result = {
        "method": "a",
        "lid": 12.3456789,
        "spectrum": [1.0] * 256,
        "checkpoint": "/home/x",
        "lidar": None,
    }
    result |= {
        "verdict": {"kind": "healthy", "reason": "long"},
        "curves": {"lid": curve, "rank": {0: float("nan")}},
    }
    kept = compact("a", 5, "d", result)
    assert (kept["lid"], kept["lidar"], kept["verdict"]) == (12.34568, None, {"kind": "healthy"})
    assert "spectrum" not in kept and "checkpoint" not in kept and len(kept["curves"]["lid"]) == LOOKS
    epochs = list(kept["curves"]["lid"])
    assert (epochs[0], epochs[-1]) == (0, 199)
    file = tmp_path / "new" / "runs.jsonl"
    write_runs(file, {("a", 5, "d"): kept, ("a", 4, "d"): {**kept, "seed": 4}})
    assert read_runs(file)["a", 5, "d"] == kept and [*read_runs(file)] == [("a", 4, "d"), ("a", 5, "d")]
    file.write_text(file.read_text() + '{"row": "a", "see')
    with pytest.raises(ConfigError, match=r"--record: line 3 of .*runs.jsonl is not the JSON of a run"):
        read_runs(file)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, few_digits: Path) -> tuple[Path, Path]:
    """Return a study of one row with two claims, and its record after one seed of the two."""
    folder = tmp_path_factory.mktemp("recorded")
    study = {
        "folder": "digits",
        "seeds": 2,
        "rows": {"simclr": "simclr"},
        "settings": [
            *("max_epochs=2", "+limit_train_batches=2", "optimizer.batch_size=16"),
            *(f"data.{split}_path={few_digits / split}" for split in ("train", "val")),
        ],
        "probe": "knn",
        "questions": {
            "x": {
                "sentence": "SimCLR learns.",
                "numbers": [{"above": {"metric": "knn_acc1", "row": "simclr", "threshold": 0}}],
            },
            "y": {
                "sentence": "SimCLR's rank rises.",
                "numbers": [{"rise": {"row": "simclr", "metric": "effective_rank", "first": 0, "last": 1}}],
            },
        },
    }
    file, record = folder / "small.yaml", folder / "runs.jsonl"
    file.write_text(json.dumps(study))
    run_study(read_study(file), folder / "out", record=record, seeds=[5])
    return file, record


def verdicts(file: Path, record: Path, out: Path, said: list[str], **options: object) -> list[str]:
    study = read_study(file)
    content = run_study(study, out, record=record, say=said.append, **options)
    assert content["seeds"] == sorted({seed for (_, seed, _) in read_runs(record)})
    about = {"why": "", "options": [], "overrides": []}
    outcomes = write_outcomes(out, content, study.claims(), study.claims(), about, "again NAME")
    unfinished = any("unfinished" in each.verdict for each in outcomes)
    assert ("not known" in (out / "claims.html").read_text()) == unfinished
    assert "again" in (out / "claims.html").read_text()
    assert json.loads((out / "claims.json").read_text())["outcomes"][0]["verdict"] == outcomes[0].verdict
    return [f"{each.verdict} {each.values}" for each in outcomes]


def test_a_recorded_run_is_not_trained_again(recorded: tuple[Path, Path], tmp_path: Path) -> None:
    file, record = recorded
    record = Path(shutil.copy(record, tmp_path))
    said: list[str] = []
    found = verdicts(file, record, tmp_path / "half", said, train=False)
    assert said == [f"1 of 2 runs are in {record}"]
    assert all(each.startswith("unfinished, 1 of 2 seeds") for each in found)
    found = verdicts(file, record, tmp_path / "out", said)
    assert sum("seed 6" in line for line in said) == 1 and not any("seed 5" in line for line in said)
    shutil.rmtree(tmp_path / "out")
    said.clear()
    assert verdicts(file, record, tmp_path / "elsewhere", said) == found
    assert said == [f"2 of 2 runs are in {record}"] and not (tmp_path / "elsewhere" / "runs").exists()
    assert not any(each.startswith("unfinished") for each in found)
    # Another setting of one row is another run.
    study = read_study(file)
    row = study.rows["simclr"]
    rows = {"simclr": row.model_copy(update={"set": [*row.set, "optimizer.lr=0.003"]})}
    said.clear()
    content = run_study(study.changed(rows=rows), tmp_path / "x", record=record, say=said.append, train=False)
    assert said == [f"0 of 2 runs are in {record}"] and by_seed(content) == [{}, {}]
