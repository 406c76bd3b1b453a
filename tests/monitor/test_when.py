"""When the callback measures, and what tells several of them in one trainer apart."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support import needs_model_checkpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from solo_dimreg import DimensionalityMonitor
from solo_dimreg.errors import ConfigError
from solo_dimreg.functional import effective_rank
from solo_dimreg.monitor.lightning import LIGHTNINGS

INSTALLED = [name for name in LIGHTNINGS if importlib.util.find_spec(name.partition(".")[0])]
ROWS = 8


@pytest.fixture(params=INSTALLED)
def pl(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    return importlib.import_module(request.param)


class Endless(IterableDataset):
    """Batches without an end; the one of a place is the same in each training."""

    def __iter__(self) -> Iterator[tuple[Tensor]]:
        generator = torch.Generator().manual_seed(0)
        while True:
            yield (torch.randn(ROWS, 10, generator=generator),)


def loader(batches: int, seed: int = 0) -> DataLoader:
    rows = torch.randn(batches * ROWS, 10, generator=torch.Generator().manual_seed(seed))
    return DataLoader(TensorDataset(rows), batch_size=ROWS)


def build(pl: Any) -> Any:
    class Model(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = nn.Linear(10, 6), nn.Linear(6, 1)
            self.seen: list[Tensor] = []

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            features = self.backbone(batch[0])
            self.seen.append(features.detach().clone())
            return self.head(features).pow(2).mean()

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.backbone(batch[0])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    torch.manual_seed(0)
    return Model()


def fit(pl: Any, module: Any, monitors: Any, train: Any, val: Any = None, **options: Any) -> Any:
    resumed = {"ckpt_path": options.pop("ckpt_path", None)}
    chosen: dict[str, Any] = {"logger": False, "enable_checkpointing": False, **options}
    chosen |= {"accelerator": "cpu", "devices": 1}
    chosen |= {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    callbacks = monitors if isinstance(monitors, list) else [monitors]
    trainer = pl.Trainer(callbacks=[*callbacks], **chosen)  # Lightning 1.6 adds its own to the list
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="monitor: ")
        trainer.fit(module, train, val, **resumed)
    return trainer


def places(monitor: Any) -> list[tuple[int, int]]:
    return [(row["epoch"], row["step"]) for row in monitor.history]


def watch(**settings: Any) -> Any:
    return DimensionalityMonitor(metrics=["effective_rank"], **settings)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [(0, 7)]),
        ({"every_n_epochs": 3}, [(0, 7)]),
        ({"every_n_steps": 3}, [(0, 3), (0, 6), (0, 7)]),
        ({"every_n_steps": 100}, [(0, 7)]),
    ],
)
def test_an_endless_loader(pl: Any, settings: Any, expected: Any) -> None:
    monitor, module = watch(max_samples=20, **settings), build(pl)
    logger = importlib.import_module(f"{pl.__name__}.loggers").CSVLogger("logs", name="", version="")
    trainer = fit(pl, module, monitor, DataLoader(Endless(), None), max_steps=7, max_epochs=-1, logger=logger)
    assert places(monitor) == expected
    for row in monitor.history:  # of the last 20 rows before
        seen = torch.cat(module.seen[: row["step"]])[-20:]
        assert row["effective_rank"] == pytest.approx(effective_rank(seen, center=True).item(), rel=1e-5)
    ranks = [row["effective_rank"] for row in monitor.history]
    assert float(trainer.callback_metrics["dimensionality/effective_rank"]) == pytest.approx(ranks[-1])
    with Path("logs/metrics.csv").open() as lines:
        logged = [row for row in csv.DictReader(lines) if row["dimensionality/effective_rank"]]
    assert [float(row["dimensionality/effective_rank"]) for row in logged] == pytest.approx(ranks)
    assert [int(row["step"]) + 1 for row in logged[:-1]] == [step for _, step in expected[:-1]]
    with Path("logs/dimensionality.csv").open() as lines:
        assert [int(row["step"]) for row in csv.DictReader(lines)] == [step for _, step in expected]


@pytest.mark.parametrize(
    ("settings", "options", "expected"),
    [
        ({}, {"max_steps": 8}, [(0, 3), (1, 6), (2, 8)]),
        ({"every_n_epochs": 2}, {"max_steps": 8}, [(1, 6), (2, 8)]),
        ({"every_n_steps": 4}, {"max_epochs": 3}, [(1, 4), (2, 8), (2, 9)]),
        ({"every_n_steps": 4, "every_n_epochs": 2}, {"max_epochs": 3}, [(1, 4), (1, 6), (2, 8), (2, 9)]),
        ({"every_n_steps": 3}, {"max_epochs": 2}, [(0, 3), (1, 6)]),
        ({"every_n_steps": 2}, {"max_epochs": 2, "accumulate_grad_batches": 3}, [(1, 2)]),
        ({"every_n_epochs": 2}, {"max_epochs": 3, "limit_train_batches": 2}, [(1, 4), (2, 6)]),
    ],
)
def test_epochs_steps_and_the_end(pl: Any, settings: Any, options: Any, expected: Any) -> None:
    monitor, module = watch(max_samples=3 * ROWS, **settings), build(pl)
    fit(pl, module, monitor, loader(3), **options)
    assert places(monitor) == expected


@pytest.mark.parametrize("at", [2, 4])
def test_what_stops_the_training_is_followed_by_a_last_look(pl: Any, at: int) -> None:
    class Stops(pl.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.should_stop = trainer.global_step >= at

    monitor, module = watch(every_n_epochs=10), build(pl)
    fit(pl, module, [monitor, Stops()], loader(3), max_epochs=50)
    assert places(monitor) == [((at - 1) // 3, at)]
    seen = torch.cat(module.seen[-3:])  # as many steps as an epoch has
    expected = effective_rank(seen, center=True).item()
    assert monitor.history[0]["effective_rank"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "options", "expected"),
    [
        # Validations after the epochs 2, 4, 6 and 8: none of them the fifth, and none the ninth.
        ({"every_n_epochs": 5}, {"max_epochs": 9, "check_val_every_n_epoch": 2}, [(5, 12), (7, 16)]),
        ({"every_n_epochs": 4}, {"max_epochs": 9, "check_val_every_n_epoch": 2}, [(3, 8), (7, 16)]),
        ({"every_n_epochs": 1}, {"max_epochs": 3, "check_val_every_n_epoch": 2}, [(1, 4)]),
        ({}, {"max_epochs": 2, "val_check_interval": 1}, [(0, 1), (0, 2), (1, 3), (1, 4)]),
        ({"every_n_steps": 2}, {"max_epochs": 2, "val_check_interval": 1}, [(0, 2), (1, 3), (1, 4)]),
        ({"every_n_steps": 3}, {"max_steps": 5, "val_check_interval": 1}, [(1, 3), (2, 5)]),
    ],
)
def test_validations_that_miss_the_epochs(pl: Any, settings: Any, options: Any, expected: Any) -> None:
    monitor, module = watch(on="val", **settings), build(pl)
    fit(pl, module, monitor, loader(2), loader(2, seed=1), **options)
    assert places(monitor) == expected


def test_validations_by_steps_across_epochs(pl: Any) -> None:
    if pl.__version__.startswith("1.6"):
        pytest.skip("Lightning 1.6 validates by steps within an epoch alone")
    monitor, module = watch(on="val", every_n_steps=4), build(pl)
    options = {"val_check_interval": 3, "check_val_every_n_epoch": None, "max_steps": 14}
    fit(pl, module, monitor, DataLoader(Endless(), None), loader(2, seed=1), **options)
    # Validations at 3, 6, 9 and 12: the first at or after 4, 8 and 12.
    assert places(monitor) == [(0, 6), (0, 9), (0, 12)]


def test_rows_are_of_one_validation(pl: Any) -> None:
    monitor, module = watch(on="val", every_n_epochs=2), build(pl)
    fit(pl, module, monitor, loader(2), loader(2, seed=1), max_epochs=2)
    with torch.no_grad():
        rows = module.eval().backbone(loader(2, seed=1).dataset.tensors[0])
    expected = effective_rank(rows, center=True).item()
    assert monitor.history[0]["effective_rank"] == pytest.approx(expected, rel=1e-5)


def test_a_validation_that_never_comes_is_told_of(pl: Any) -> None:
    with pytest.warns(UserWarning, match="the training ended before a validation"):
        trainer = pl.Trainer(
            callbacks=[watch(on="val")],
            max_epochs=1,
            check_val_every_n_epoch=2,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            num_sanity_val_steps=1,
        )
        trainer.fit(build(pl), loader(2), loader(2, seed=1))


def test_the_training_is_the_same_and_goes_on_from_a_checkpoint(pl: Any) -> None:
    plain, whole, parts = build(pl), build(pl), build(pl)
    fit(pl, plain, [], loader(3), max_epochs=4)
    monitor = watch(every_n_steps=2, every_n_epochs=1, max_samples=ROWS)
    fit(pl, whole, monitor, loader(3), max_epochs=4)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), whole.parameters(), strict=True))

    again = watch(every_n_steps=2, every_n_epochs=1, max_samples=ROWS)
    trainer = fit(pl, parts, again, loader(3), max_epochs=2)
    trainer.save_checkpoint("half.ckpt")
    fit(pl, parts, again, loader(3), max_epochs=4, ckpt_path="half.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), parts.parameters(), strict=True))
    assert places(monitor) == [(0, 2), (0, 3), (1, 4), (1, 6), (2, 8), (2, 9), (3, 10), (3, 12)]
    assert again.history == monitor.history


def test_a_second_training_begins_anew(pl: Any) -> None:
    """Its history and the peak of its alarm are its own; a checkpoint brings those of its training."""
    monitor = watch(alarm={"drawdown": 0.9})
    monitor.alarm.look(1e6, 0)
    monitor.history = [{"epoch": 0, "step": 1, "effective_rank": 1e6}]
    trainer = fit(pl, build(pl), monitor, loader(3), max_epochs=2)
    assert places(monitor) == [(0, 3), (1, 6)]
    first = monitor.alarm.state_dict()
    assert first["peak"] == max(row["effective_rank"] for row in monitor.history) and not first["count"]

    trainer.save_checkpoint("kept.ckpt")
    before = list(monitor.history)
    fit(pl, build(pl), monitor, loader(3), max_epochs=3, ckpt_path="kept.ckpt")
    assert monitor.history[:2] == before and places(monitor)[2:] == [(2, 9)]
    assert monitor.alarm.peak >= first["peak"]


def test_a_trainer_that_goes_on_keeps_its_history(pl: Any) -> None:
    monitor, module = watch(), build(pl)
    trainer = fit(pl, module, monitor, loader(3), max_epochs=1)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, loader(3))
    assert places(monitor) == [(0, 3), (1, 6)]


def test_nothing_is_left_to_train(pl: Any) -> None:
    module = build(pl)
    trainer = fit(pl, module, [], loader(3), max_epochs=1)
    trainer.save_checkpoint("done.ckpt")
    fit(pl, module, watch(), loader(3), max_epochs=1, ckpt_path="done.ckpt")
    assert not module.backbone._forward_hooks


def test_several_in_one_trainer(pl: Any) -> None:
    needs_model_checkpoint(pl)
    callbacks, loggers = (
        importlib.import_module(f"{pl.__name__}.{name}") for name in ("callbacks", "loggers")
    )
    logger = loggers.CSVLogger("logs", name="", version="")

    def several() -> list[Any]:
        train, val, deep = watch(), watch(on="val"), watch(features="head", max_samples=9)
        return [train, val, deep]

    monitors, save = several(), callbacks.ModelCheckpoint("kept")
    options = {"logger": logger, "enable_checkpointing": True}
    trainer = fit(pl, build(pl), [*monitors, save], loader(3), loader(2, seed=1), max_epochs=2, **options)
    names = ["dimensionality-backbone-train", "dimensionality-backbone-val", "dimensionality-head-train"]
    assert [monitor.name for monitor in monitors] == names
    for monitor in monitors:
        with Path("logs", f"{monitor.name}.csv").open() as lines:
            written = [float(row["effective_rank"]) for row in csv.DictReader(lines)]
        assert written == [row["effective_rank"] for row in monitor.history]
        logged = float(trainer.callback_metrics[f"{monitor.name}/effective_rank"])
        assert logged == pytest.approx(written[-1], rel=1e-6)
        assert Path("logs", f"{monitor.name}.png").is_file()
    assert len({monitor.state_key for monitor in monitors}) == 3

    resumed = several()
    fit(
        pl,
        build(pl),
        resumed,
        loader(3),
        loader(2, seed=1),
        max_epochs=3,
        ckpt_path=save.best_model_path,
    )
    for before, after in zip(monitors, resumed, strict=True):
        assert after.history[:2] == before.history and len(after.history) == 3


def test_two_that_are_equal_are_refused(pl: Any) -> None:
    with pytest.raises(ConfigError, match="two monitors look at 'backbone' on 'train'; keep one of them"):
        fit(pl, build(pl), [watch(), watch()], loader(3), max_epochs=1)
