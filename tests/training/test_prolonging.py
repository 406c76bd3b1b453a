"""A training that is resumed with another length or other settings goes on by the schedule of its config."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support import config, slow

from solo_dimreg.errors import ConfigError
from solo_dimreg.solo_learn import register
from solo_dimreg.training.pretraining import pretrain


class Step(NamedTuple):
    """Return the options of every group of the optimizer in one step."""

    epoch: int
    rates: list[float]
    weight_decays: list[float]
    tau: float


class Trainings:
    """Trains, and keeps what each step is done with."""

    def __init__(self, few_digits: Path) -> None:
        self.few_digits = few_digits
        self.steps: list[Step] = []

    def __call__(
        self, method: str, epochs: int, resume: Path | None = None, **changes: Any
    ) -> tuple[list[Step], Path]:
        self.steps.clear()
        checkpoint = {"enabled": True, "dir": "trained", "frequency": 1, "keep_prev": True}
        settings = config(method, str(self.few_digits / "train"), checkpoint=checkpoint, max_epochs=epochs)
        settings.backbone = {"name": "timm/test_resnet"}
        settings.enable_progress_bar = False
        settings.update(changes)
        if resume:
            settings.resume_from_checkpoint = str(resume)
        folder = pretrain(settings)
        assert folder is not None
        return list(self.steps), folder


@pytest.fixture
def train(few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainings:
    monkeypatch.chdir(tmp_path)
    trainings = Trainings(few_digits)
    for name in ("byol", "simsiam"):
        kind = register().methods[name]
        step = kind.training_step

        def seen(self: Any, batch: Any, batch_idx: int, step: Any = step) -> Any:
            groups = self.trainer.optimizers[0].param_groups
            tau = self.momentum_updater.cur_tau if hasattr(self, "momentum_updater") else 0.0
            rates, decays = ([group[key] for group in groups] for key in ("lr", "weight_decay"))
            trainings.steps.append(Step(self.trainer.current_epoch, rates, decays, tau))
            return step(self, batch, batch_idx)

        monkeypatch.setattr(kind, "training_step", seen)
    return trainings


def epoch(folder: Path, number: int) -> Path:
    (found,) = folder.glob(f"*ep={number}.ckpt")
    return found


@pytest.mark.parametrize(
    ("method", "scheduler"),
    [
        ("byol", {"name": "warmup_cosine", "warmup_epochs": 1}),
        pytest.param("byol", {"name": "warmup_cosine", "warmup_epochs": 1, "interval": "epoch"}, marks=slow),
        pytest.param("byol", {"name": "step", "lr_decay_steps": [1, 3]}, marks=slow),
        pytest.param("byol", {"name": "none"}, marks=slow),
        pytest.param(
            "simsiam", {"name": "warmup_cosine", "warmup_epochs": 1}, marks=slow
        ),  # with a predictor of a constant rate
    ],
)
def test_every_step_is_that_of_the_whole_training(
    train: Trainings, capsys: pytest.CaptureFixture, method: str, scheduler: dict[str, Any]
) -> None:
    short = {"scheduler": scheduler, "limit_train_batches": 3}
    four, folder_of_four = train(method, 4, **short)
    two, folder_of_two = train(method, 2, **short)
    capsys.readouterr()
    prolonged, _ = train(method, 4, resume=epoch(folder_of_two, 1), **short)
    assert prolonged == [step for step in four if step.epoch >= 2] and len(prolonged) == 6
    said = [line for line in capsys.readouterr().err.splitlines() if "resumed after" in line]
    assert len(said) == 1
    assert "after epoch 2 of 2, now of 4: from step 6 of 12 on the learning rate follows the" in said[0]
    assert f"at {prolonged[0].rates[0]:g}" in said[0]
    shortened, _ = train(method, 2, resume=epoch(folder_of_four, 0), **short)
    assert shortened == [step for step in two if step.epoch == 1] and len(shortened) == 3
    assert "after epoch 1 of 4, now of 2: from step 3 of 6 on" in capsys.readouterr().err


@pytest.mark.slow
def test_changed_settings_count_from_there_on(train: Trainings, capsys: pytest.CaptureFixture) -> None:
    """Another batch size too: the schedule goes on at the same epoch, which is another step."""
    scheduler = {"name": "warmup_cosine", "warmup_epochs": 1}
    optimizer = {"name": "sgd", "batch_size": 16, "lr": 0.1, "classifier_lr": 0.1, "weight_decay": 0.0}
    _, folder = train("byol", 4, scheduler=scheduler, optimizer=optimizer)
    other = {
        "optimizer": {**optimizer, "batch_size": 32, "lr": 0.3, "weight_decay": 0.01},
        "scheduler": {**scheduler, "warmup_epochs": 2, "min_lr": 0.001},
    }
    whole, _ = train("byol", 4, **other)
    capsys.readouterr()
    changed, folder = train("byol", 4, resume=epoch(folder, 0), **other)
    assert changed == [step for step in whole if step.epoch >= 1] and len(changed) == 9
    said = capsys.readouterr().err
    assert "optimizer.batch_size (16, now 32)" in said and "scheduler.min_lr (" in said
    assert "resumed after epoch 1 of 4: from step 3 of 12 on" in said
    again, _ = train("byol", 4, resume=epoch(folder, 2), **other)
    assert again == [step for step in whole if step.epoch == 3]
    assert "resumed after" not in capsys.readouterr().err


def test_what_cannot_go_on_is_named(train: Trainings, capsys: pytest.CaptureFixture) -> None:
    short = {"limit_train_batches": 1}
    _, folder = train("byol", 2, **short)
    optimizer = {"name": "adam", "batch_size": 16, "lr": 0.1, "classifier_lr": 0.1, "weight_decay": 0.0}
    with pytest.raises(ConfigError, match=r"optimizer.name: 'adam' cannot continue .* it must be 'sgd'\."):
        train("byol", 3, resume=epoch(folder, 1), optimizer=optimizer, **short)
    with pytest.raises(ConfigError, match=r"max_epochs: 1 is fewer than the 2 epochs that .*ep=1\.ckpt"):
        train("byol", 1, resume=epoch(folder, 1), **short)
    train("byol", 3, resume=epoch(folder, 1), seed=8, **short)
    assert "seed (7, now 8) has no effect, the random state is" in capsys.readouterr().err


def test_auto_resume_prolongs_or_says_what_differs(train: Trainings, capsys: pytest.CaptureFixture) -> None:
    auto = {"limit_train_batches": 2, "auto_resume": {"enabled": True}}
    _, folder = train("byol", 2, **auto)
    steps, _ = train("byol", 3, **auto)
    said = capsys.readouterr()
    assert f"Resuming from {epoch(folder, 1)}" in said.out and [step.epoch for step in steps] == [2, 2]
    assert "resumed after epoch 2 of 2, now of 3" in said.err
    optimizer = {"name": "sgd", "batch_size": 16, "lr": 0.2, "classifier_lr": 0.1, "weight_decay": 0.0}
    steps, _ = train("byol", 3, optimizer=optimizer, **auto)
    said = capsys.readouterr()
    assert "Not resuming from" in said.out and "it differs in optimizer.lr (" in said.out
    assert "The training starts anew." in said.out and steps[0].epoch == 0
    train("byol", 1, **auto)
    assert "max_epochs: 1 is fewer than the 3 epochs" in capsys.readouterr().out
