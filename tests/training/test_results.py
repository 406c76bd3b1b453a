"""The results of an evaluation are kept beside the checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support import config

from solo_dimreg.solo_learn import Host, Run
from solo_dimreg.training.evaluation import Features, knn_accuracy
from solo_dimreg.training.results import read_evaluations, save_evaluation


@pytest.fixture
def run(tmp_path: Path) -> Run:
    settings = config("simclr", "images/train")
    settings.data.val_path = "images/val"
    return Run(tmp_path, tmp_path / "simclr-ep=3.ckpt", settings, None)


def test_the_same_evaluation_replaces_itself_and_another_one_does_not(host: Host, run: Run) -> None:
    def save(accuracy: float, kind: str = "knn", k: int = 20, **changes: Any) -> Path | None:
        settings = run.settings.copy()
        settings.update(changes)
        return save_evaluation(host, run, kind, {"k": k}, settings, {"acc1": accuracy}, "cpu")

    first = save(50.0)
    assert first is not None and first.parent == run.folder and first.name.startswith("knn-")
    assert save(60.0) == first and json.loads(first.read_text())["acc1"] == 60.0
    assert save(60.0, seed=1) == first  # of k-NN nothing is drawn
    other = {save(70.0, k=50), save(70.0, data={"val_path": "elsewhere"}), save(70.0, kind="linear")}
    other.add(save(70.0, kind="linear", seed=1))
    assert len(other) == 4 and first not in other and len(read_evaluations(run.folder)) == 5
    saved = json.loads(first.read_text())
    assert saved["checkpoint"] == "simclr-ep=3.ckpt" and saved["pretrained_epochs"] == 4
    assert saved["data"] == {"dataset": "custom", "train_path": "images/train", "val_path": "images/val"}
    assert saved["resolution"] == 32 and saved["settings"] == {"k": 20}
    assert saved["environment"]["torch"] == torch.__version__ and saved["finished"].endswith("UTC")


def test_a_folder_that_cannot_be_written_into_costs_a_warning(
    host: Host, run: Run, capfd: pytest.CaptureFixture
) -> None:
    (run.folder / "file").touch()
    elsewhere = Run(run.folder / "file", run.checkpoint, run.settings, None)
    assert save_evaluation(host, elsewhere, "knn", {}, run.settings, {"acc1": 1.0}, "cpu") is None
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("warning: ") and "cannot be kept beside the checkpoint" in line


@pytest.mark.parametrize(("classes", "reported"), [(2, False), (5, False), (6, True)])
def test_top_five_is_of_more_than_five_classes(host: Host, classes: int, reported: bool) -> None:
    labels = torch.arange(classes).repeat(4)
    features = Features(torch.nn.functional.one_hot(labels).float(), None, labels)
    # Each point's nearest are those of its class, so that all are right.
    result = knn_accuracy(host, features, features, "backbone", 4, 0.07, "cosine")
    assert result == {"acc1": 100.0, "classes": classes} | ({"acc5": 100.0} if reported else {})
