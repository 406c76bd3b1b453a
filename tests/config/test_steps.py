"""The number of steps of a training: as Lightning counts them, and a warning where they are too few."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch.utils.data import DataLoader, TensorDataset

from solo_dimreg.config.steps import Steps, check_steps, count_steps, lower_batch
from solo_dimreg.solo_learn import Host


def settings_of(batch_size: int, max_epochs: int, **changes: Any) -> Any:
    optimizer = {"batch_size": batch_size}
    return OmegaConf.create({"optimizer": optimizer, "max_epochs": max_epochs, "devices": 1, **changes})


CASES = [
    (228, settings_of(128, 3), Steps(1, 3)),  # the comparison that trained three steps in all
    (1437, settings_of(128, 12), Steps(11, 132)),
    (1000, settings_of(32, 5, accumulate_grad_batches=4), Steps(8, 40)),  # 31 batches, the last step of 3
    (1000, settings_of(32, 5, max_steps=50), Steps(31, 50)),
    (1000, settings_of(32, 5, max_steps=-1, limit_train_batches=7), Steps(7, 35)),
    (1000, settings_of(32, 5, limit_train_batches=0.5), Steps(15, 75)),
]


@pytest.mark.parametrize(("images", "settings", "steps"), CASES)
def test_steps_are_those_of_lightning(host: Host, images: int, settings: Any, steps: Steps) -> None:
    assert count_steps(settings, images) == steps

    class Module(host.pl.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.weight * batch[0].sum()

    keys = ("max_epochs", "accumulate_grad_batches", "max_steps", "limit_train_batches")
    chosen = {key: settings[key] for key in keys if key in settings}
    silent = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = host.pl.Trainer(accelerator="cpu", devices=1, logger=False, **silent, **chosen)
    loader = DataLoader(TensorDataset(torch.zeros(images)), settings.optimizer.batch_size, drop_last=True)
    trainer.fit(Module(), loader)
    assert trainer.global_step == steps.total


def test_several_processes_share_the_images() -> None:
    assert count_steps(settings_of(128, 2, devices=[0, 1], num_nodes=2), 12800) == Steps(25, 50)


@pytest.mark.parametrize(
    ("images", "devices", "size", "lowered"),
    [
        (128, 1, 16, 128),  # a batch is full
        (127, 1, 16, 16),
        (48, 1, 64, 48),
        (200, 2, 128, 100),
        (1, 1, 16, 128),  # check_steps refuses it
    ],
)
def test_a_batch_larger_than_the_images_is_lowered(
    images: int, devices: int, size: int, lowered: int, capsys: pytest.CaptureFixture
) -> None:
    settings = settings_of(128, 3, devices=devices)
    lower_batch(settings, images, size)
    assert settings.optimizer.batch_size == lowered
    said = (
        f"optimizer.batch_size 128 becomes {lowered}: a process has only {images // devices} training images."
    )
    assert capsys.readouterr().err == (f"{said}\n" if lowered < 128 else "")


@pytest.mark.parametrize(("batch_size", "max_epochs", "few"), [(128, 3, True), (16, 100, False)])
def test_too_few_steps_are_named(
    capsys: pytest.CaptureFixture, batch_size: int, max_epochs: int, few: bool
) -> None:
    check_steps(settings_of(batch_size, max_epochs), 228, "linear probe")
    said = capsys.readouterr().err
    assert said == (
        "warning: The linear probe has only 3 steps, 1 per epoch (228 images, optimizer.batch_size=128, "
        "max_epochs=3), too few to learn much; make optimizer.batch_size smaller or max_epochs "
        "larger.\n"
        if few
        else ""
    )
