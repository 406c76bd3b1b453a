from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import build_small, small, train_steps

from solo_dimreg.solo_learn import Host
from solo_dimreg.solo_learn.record import end_record, evaluated_as_trained, label_of, read_record
from solo_dimreg.solo_learn.run_summary import RunSummary, describe_end, describe_terms
from solo_dimreg.training.pretraining import pretrain


@pytest.mark.parametrize(
    ("ldreg", "says"),
    [
        ({"weight": 0.01, "warmup_epochs": 0}, "ldreg of the features, weight 0.01, k = 16"),
        ({"weight": 0.01, "k": 8, "warmup_epochs": 2}, "weight 0.01, k = 8, from epoch 3 of 5"),
        # 16 images in two views: each feature has 31 others.
        (
            {"weight": 1, "k": 64, "warmup_epochs": 0},
            "weight 1, k = 31 instead of 64: the batch is too small",
        ),
        ({"weight": 1, "warmup_epochs": 5}, "NEVER: warmup_epochs 5 of 5 epochs"),
    ],
)
def test_terms_as_they_will_be(few_digits: Path, ldreg: dict, says: str) -> None:
    method = build_small(few_digits, "simclr", False, regularizers={"ldreg": ldreg})
    (said,) = describe_terms(method, 1, 5)
    assert said.endswith(says)


def test_momentum_features_are_neighbours_too(few_digits: Path) -> None:
    method = build_small(
        few_digits, "byol", False, regularizers={"ldreg": {"weight": 1, "k": 64, "warmup_epochs": 0}}
    )
    (said,) = describe_terms(method, 1, 5)
    assert "k = 63 instead of 64" in said


@pytest.mark.parametrize("method", ["minlid_simclr", "simclr"])
def test_a_term_that_lowers_the_lid_says_so(few_digits: Path, method: str) -> None:
    ldreg = {} if method == "minlid_simclr" else {"weight": 0.01, "direction": "min"}
    (said,) = describe_terms(build_small(few_digits, method, False, regularizers={"ldreg": ldreg}), 1, 20)
    assert "weight 0.01, which LOWERS the LID (direction: min), k = 16" in said
    raised = build_small(few_digits, "ldreg_simclr", False)
    assert "LOWERS" not in next(describe_terms(raised, 1, 20))


def test_a_training_is_recorded_and_ends_with_one_line(
    host: Host,
    few_digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = small(few_digits, monitor={"every_n_epochs": 1}, max_epochs=2)
    settings.checkpoint = {"enabled": True, "dir": "trained"}
    settings.data.val_path = str(few_digits / "val")
    first = pretrain(settings)
    assert first is not None
    record = read_record(first)
    # 120 images in batches of 16: seven whole ones.
    assert (record["epochs"], record["steps"], record["resumed_from"]) == (2, 14, None)
    assert record["data"] == {
        **{"dataset": "custom", "train_path": str(few_digits / "train"), "train_images": 120},
        **{"val_path": str(few_digits / "val"), "val_images": 40},
    }
    assert record["environment"]["torch"] == torch.__version__
    assert record["environment"]["solo-learn"].startswith(host.generation)
    assert record["environment"]["device"] == "CPU, 1 thread" and record["finished"].endswith("UTC")
    lines = [line.partition("solo-dimreg: ")[2] for line in capfd.readouterr().err.splitlines()]
    (said,) = [line for line in lines if line.startswith("trained ")]
    with (first / "dimensionality.csv").open() as file:
        header, *rows = (line.strip().split(",") for line in file)
    ranks = [float(row[header.index("effective_rank")]) for row in rows]
    with (first / "metrics.csv").open() as file:
        header, *rows = (line.strip().split(",") for line in file)
    accuracy = [row[header.index("val_acc1")] for row in rows if row[header.index("val_acc1")]][-1]
    assert said == (
        f"trained 2 epochs, 14 steps; effective rank of the features {ranks[0]:.1f} at first, {ranks[1]:.1f} "
        f"at last; online accuracy {float(accuracy):.1f} % on the validation images."
    )
    (checkpoint,) = first.glob("*.ckpt")
    settings.resume_from_checkpoint, settings.max_epochs = str(checkpoint), 3
    second = pretrain(settings)
    assert second is not None
    record = read_record(second)
    assert (record["resumed_from"], record["epochs"], record["steps"]) == (str(checkpoint), 3, 21)
    assert f"trained 3 epochs, 21 steps, resumed from {checkpoint.name}; " in capfd.readouterr().err


def test_without_a_checkpoint_no_command_is_printed(
    host: Host, few_digits: Path, capfd: pytest.CaptureFixture
) -> None:
    train_steps(host, build_small(few_digits, "simclr", False))
    said = [line for line in capfd.readouterr().err.splitlines() if "solo-dimreg" in line]
    assert len(said) == 1 and "trained 1 epoch, 3 steps; online accuracy " in said[0]
    assert said[0].endswith(" % on the training images.")


def test_the_last_line_leaves_out_what_was_not_measured() -> None:
    nothing = {"resumed_from": None, "effective_rank": None, "online_accuracy": None}
    assert describe_end({"epochs": 1, "steps": 1, **nothing}) == "trained 1 epoch, 1 step."


def test_the_commands_of_a_checkpoint_are_introduced(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    """In solo-learn's scripts, the module does not raise as in our own command."""
    (tmp_path / "args.json").touch()
    (tmp_path / "x-ep=1.ckpt").touch()
    monkeypatch.setattr("solo_dimreg.solo_learn.run_summary.next_steps", lambda *_: ["solo-dimreg knn x"])
    summary = RunSummary(host)
    summary.folder, summary.record = tmp_path, {"resumed_from": None}
    trainer = SimpleNamespace(callbacks=[], current_epoch=1, global_step=2, callback_metrics={})
    summary.on_fit_end(trainer, SimpleNamespace())
    assert capfd.readouterr().err.splitlines()[1:] == [
        f"solo-dimreg: Checkpoint: {tmp_path}",
        "solo-dimreg: Evaluate it with:",
        "  solo-dimreg knn x",
    ]


@pytest.mark.parametrize(
    ("looks", "kept", "says"),
    [
        ([29.4], [29.4], "29.4, measured once."),
        ([29.4, 8.0, 29.4], [29.4, 29.4], "29.4 at first, 29.4 at last."),
        ([], None, "2 steps."),
    ],
)
def test_a_single_look_is_no_comparison(looks: list[float], kept: list[float] | None, says: str) -> None:
    monitor = SimpleNamespace(history=[{"effective_rank": rank} for rank in looks])
    trainer: Any = SimpleNamespace(callbacks=[monitor], current_epoch=1, global_step=2, callback_metrics={})
    record = end_record(trainer, None, False)
    assert record["effective_rank"] == kept
    assert describe_end({**record, "resumed_from": None}).endswith(says)


@pytest.mark.parametrize(
    ("dataset", "view", "same"),
    [
        ("custom", {"crop_size": 224}, True),
        ("custom", {"crop_size": 32}, False),
        ("custom", {"crop_size": 224, "mean": [0.5]}, False),
        ("cifar10", {"crop_size": 32}, True),
        ("stl10", {"crop_size": 96}, True),
        ("imagenet100", {"crop_size": 160}, False),
    ],
)
def test_solo_learns_evaluation_has_one_resolution_a_data_set(dataset: str, view: dict, same: bool) -> None:
    # The small crops of multi-crop, which stand second, are not what is evaluated.
    settings = {"data": {"dataset": dataset}, "augmentations": [view, {"crop_size": 96}]}
    assert evaluated_as_trained(settings) is same


@pytest.mark.parametrize(
    ("method", "name", "label"),
    [
        ("ldreg_byol", "byol-digits", "ldreg_byol (byol-digits)"),
        ("byol", "ldreg_byol-digits", "byol (ldreg_byol-digits)"),
        ("byol", "byol-digits", "byol-digits"),
        ("adadim", "adadim_fixed-digits", "adadim_fixed-digits"),
        ("simclr", "mine", "simclr (mine)"),
        ("simclr", "simclr", "simclr"),
        ("mocov2", "mocov2plus-cifar", "mocov2 (mocov2plus-cifar)"),
        ("simclr", "", "simclr"),
    ],
)
def test_a_run_is_called_by_its_method(method: str, name: str, label: str) -> None:
    assert label_of({"method": method, "name": name}) == label


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    for content in ("{", "[]", json.dumps({"data": 3})):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(ValueError, match=r"run\.json"):
            read_record(tmp_path)
