"""What follows an alarm: going back to the last good checkpoint, or a remedy, in trainings that collapse."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from support import RandomViews, build, config, slow, small
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from solo_dimreg.config.blocks import read_blocks
from solo_dimreg.errors import CollapseError, ConfigError
from solo_dimreg.files import checkpoint_epoch
from solo_dimreg.functional import effective_rank
from solo_dimreg.monitor.alarm import NEVER, Alarm
from solo_dimreg.monitor.callback import BlockMonitor, DimensionalityMonitor
from solo_dimreg.solo_learn import Host
from solo_dimreg.training.evaluation import evaluation_transforms
from solo_dimreg.training.pretraining import pretrain

REMEDY = {"effective_rank": {"weight": 0.5, "warmup_epochs": 1}, "decorrelation": {"weight": 0.01}}
ACTIONS: dict[str, dict[str, Any]] = {
    "warn": {"action": "warn"},
    "rollback": {"action": "rollback", "rollbacks": 1},
    "remedy": {"action": "remedy", "remedy": REMEDY},
}


def settings_of(few_digits: Path, folder: Path, action: str) -> Any:
    """Min LID with a big weight, which falls within a few epochs."""
    checkpoint = {"enabled": True, "dir": str(folder), "frequency": 1, "keep_prev": True}
    settings = small(few_digits, "minlid_simclr", checkpoint=checkpoint, max_epochs=9)
    settings.regularizers = {"ldreg": {"weight": 20.0, "k": 8, "warmup_epochs": 0}}
    settings.scheduler = {"name": "warmup_cosine", "warmup_epochs": 2, "min_lr": 1e-3}
    settings.monitor = {
        "metrics": ["effective_rank"], "alarm": {"drawdown": 0.4, "patience": 2, **ACTIONS[action]}
    }  # fmt: skip
    return settings


def train(settings: Any) -> str:
    """Trains; returns the error of the alarm, empty if the training ended by itself."""
    try:
        pretrain(settings)
    except CollapseError as error:
        return str(error)
    return ""


def states(folder: Path) -> dict[int, Any]:
    """The checkpoints by their epoch."""
    files = folder.rglob("*.ckpt")
    return {checkpoint_epoch(file): torch.load(file, weights_only=True) for file in files}


def alarms(folder: Path) -> list[dict[str, Any]]:
    (record,) = folder.rglob("run.json")
    return json.loads(record.read_text())["alarms"]


def arguments(folder: Path) -> dict[str, Any]:
    (file,) = folder.rglob("args.json")
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def trained(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, str]]:
    """Trains with an action, once; returns the folder and how it ended."""
    done: dict[str, tuple[Path, str]] = {}

    def of(action: str) -> tuple[Path, str]:
        if action not in done:
            folder = tmp_path_factory.mktemp("runs") / action
            done[action] = folder, train(settings_of(few_digits, folder, action))
        return done[action]

    return of


def resume(few_digits: Path, before: Path, epoch: int, folder: Path, action: str, as_written: bool) -> str:
    """Resumes a copy of a training from one of its checkpoints."""
    settings = settings_of(few_digits, folder, action)
    if as_written:
        content = arguments(before)
        for block in ("regularizers", "monitor"):
            settings[block] = OmegaConf.create(content.get("config", content)[block])
    (checkpoint,) = (file for file in before.rglob("*.ckpt") if checkpoint_epoch(file) == epoch)
    settings.resume_from_checkpoint = str(checkpoint)
    torch.rand(7)
    return train(settings)


def assert_equal_ends(whole: Path, parts: Path) -> None:
    first, second = states(whole), states(parts)
    last = max(first)
    assert last == max(second)
    for key, value in first[last]["state_dict"].items():
        assert torch.equal(value, second[last]["state_dict"][key]), key
    assert (
        first[last]["optimizer_states"][0]["param_groups"]
        == second[last]["optimizer_states"][0]["param_groups"]
    )


def test_a_rollback_restores_the_good_checkpoint_and_halves_the_rates(trained: Any) -> None:
    folder, end = trained("rollback")
    (event,) = alarms(folder)
    good, after = torch.load(event["checkpoint"], weights_only=True), states(folder)[event["epoch"]]
    assert good["epoch"] < event["epoch"] == after["epoch"]
    assert good["state_dict"].keys() == after["state_dict"].keys()
    assert all(torch.equal(good["state_dict"][key], value) for key, value in after["state_dict"].items())
    before, now = good["optimizer_states"][0]["state"], after["optimizer_states"][0]["state"]
    assert before.keys() == now.keys() and len(now) > 4
    for key, state in now.items():
        assert torch.equal(before[key]["momentum_buffer"], state["momentum_buffer"])
    # The schedule goes on: in the same epoch, a training without a rollback has twice the rate.
    plain = states(trained("warn")[0])
    for epoch, state in states(folder).items():
        part = 0.5 if epoch >= event["epoch"] else 1.0
        for mine, theirs in zip(
            state["optimizer_states"][0]["param_groups"],
            plain[epoch]["optimizer_states"][0]["param_groups"],
            strict=True,
        ):
            assert mine["lr"] == part * theirs["lr"]
    assert any(epoch > event["epoch"] for epoch in states(folder))
    assert "It was rolled back once." in end  # it has fallen again
    assert len(list(folder.rglob("*.good"))) == 2


def test_a_resumed_run_keeps_the_halved_rates(few_digits: Path, trained: Any, tmp_path: Path) -> None:
    whole, end = trained("rollback")
    (event,) = alarms(whole)
    again = resume(few_digits, whole, event["epoch"], tmp_path / "parts", "rollback", False)
    assert again.partition("; the last")[0] == end.partition("; the last")[0]
    assert_equal_ends(whole, tmp_path / "parts")
    assert alarms(tmp_path / "parts") == [event]


def test_a_remedy_takes_part_from_the_next_step_on(trained: Any) -> None:
    folder, _ = trained("remedy")
    (event,) = alarms(folder)
    with_remedy, plain = states(folder), states(trained("warn")[0])
    assert event["terms"] == [*REMEDY] and event["from_epoch"] == event["epoch"] + 1
    for epoch in with_remedy:
        same = all(
            torch.equal(plain[epoch]["state_dict"][key], value)
            for key, value in with_remedy[epoch]["state_dict"].items()
        )
        assert same == (epoch <= event["epoch"])
    (metrics,) = folder.rglob("metrics.csv")
    header, *rows = (line.split(",") for line in metrics.read_text().splitlines())
    first = {}
    for name in REMEDY:
        column, epochs = header.index(f"train_{name}_epoch"), header.index("epoch")
        first[name] = min(int(float(row[epochs])) for row in rows if row[column])
    start = event["epoch"] + 1
    assert first == {"decorrelation": start, "effective_rank": start + 1}  # after one epoch of warm-up
    written = arguments(folder)
    written = written.get("config", written)
    assert [*written["regularizers"]] == ["ldreg", *REMEDY]
    assert written["regularizers"]["effective_rank"] == {"weight": 0.5, "warmup_epochs": start + 1}
    assert written["regularizers"]["decorrelation"] == {"weight": 0.01, "warmup_epochs": start}
    assert written["monitor"]["alarm"] == {"drawdown": 0.4, "patience": 2, "action": "stop"}


@pytest.mark.parametrize("as_written", [False, True])
def test_a_run_with_a_remedy_resumes_exactly(
    few_digits: Path, trained: Any, tmp_path: Path, as_written: bool, capfd: pytest.CaptureFixture
) -> None:
    """By the config that it began with, and by its ``args.json``."""
    whole, end = trained("remedy")
    (event,) = alarms(whole)
    again = resume(few_digits, whole, event["epoch"], tmp_path / "parts", "remedy", as_written)
    assert again.partition("; the last")[0] == end.partition("; the last")[0]
    assert_equal_ends(whole, tmp_path / "parts")
    assert "other settings" not in capfd.readouterr().err
    assert arguments(tmp_path / "parts").get("regularizers") == arguments(whole).get("regularizers")


def test_without_a_regularizer_of_its_own_a_method_gets_the_remedy_too(few_digits: Path) -> None:
    block = {"alarm": {"action": "remedy", "remedy": {"decorrelation": {"weight": 1, "where": "embeddings"}}}}
    method = build(small(few_digits, monitor=block))
    term = method.regularizers["decorrelation"]
    assert not term.active(10**9) and term.where == "embeddings"


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"action": "remedy"}, r"alarm.remedy: is missing; action: remedy needs a regularizer"),
        ({"remedy": REMEDY}, r"alarm.remedy: is used by action: remedy alone; action is warn"),
        ({"rollbacks": 3}, r"alarm.rollbacks: is used by action: rollback alone"),
        ({"action": "rollback", "rollbacks": 0}, r"alarm.rollbacks: 0 is not allowed; .*whole number >= 1"),
        ({"action": "remedy", "remedy": "ldreg"}, r"alarm.remedy: 'ldreg' is not a mapping"),
        (
            {"action": "remedy", "remedy": {"decorelation": {"weight": 1}}},
            r"alarm.remedy.decorelation: Unknown regularizer .*Did you mean 'decorrelation'",
        ),
        (
            {"action": "remedy", "remedy": {"sigreg": {"where": "features"}}},
            r"alarm.remedy.sigreg.weight: is missing",
        ),
        (
            {"action": "remedy", "remedy": {"ldreg": {"weight": 1, "kk": 3}}},
            r"alarm.remedy.ldreg.kk: unknown key",
        ),
        (
            {"action": "remedy", "remedy": {"ldreg": {"weight": 1, "k": 0}}},
            r"alarm.remedy.ldreg.k: .*0",
        ),
    ],
)
def test_wrong_actions_are_refused(block: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^monitor.{message}"):
        read_blocks({"monitor": {"alarm": block}}.get)


def test_a_remedy_must_be_new() -> None:
    term = {"ldreg": {"weight": 1}}
    with pytest.raises(ConfigError, match=r"monitor.alarm.remedy: 'ldreg' takes part from the start"):
        read_blocks({"regularizers": term, "monitor": {"alarm": {"action": "remedy", "remedy": term}}}.get)


def test_a_rollback_without_checkpoints_is_refused_before_the_first_step(few_digits: Path) -> None:
    settings = small(few_digits, monitor={"alarm": {"action": "rollback"}})
    with pytest.raises(
        ConfigError, match=r"^monitor.alarm.action: 'rollback' needs checkpoints: set checkpoint.enabled"
    ):
        pretrain(settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on": "fixed"}, "on: 'fixed' works in a config's monitor block alone"),
        ({"alarm": {"action": "rollback"}}, "alarm.action: 'rollback' works in a config's"),
    ],
)
def test_the_public_callback_refuses_what_needs_solo_learn(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DimensionalityMonitor(**options)
    assert DimensionalityMonitor().on == "train"


def test_checkpoints_of_the_collapsed_network_are_never_good(tmp_path: Path) -> None:
    alarm = Alarm(0.5, 1)
    saved = []

    def look(value: float, epoch: int) -> bool:
        found = alarm.look(value, epoch)
        alarm.keep_good(saved)
        saved.append(tmp_path / f"a-ep={epoch}.ckpt")
        saved[-1].touch()
        return found

    assert not look(10, 0) and look(1, 1)
    first = alarm.named = alarm.good
    alarm.go_on(NEVER, NEVER)  # a remedy: the network is as it was
    assert first.endswith("ep=0.ckpt.good") and look(1, 2) and alarm.good == first
    alarm.go_on(2, 20)  # a rollback, before the checkpoint of epoch 2
    assert look(1, 3) and alarm.good.endswith("ep=2.ckpt.good")
    alarm.named = alarm.good
    alarm.go_on(NEVER, NEVER)
    assert not look(9, 4) and look(1, 5) and alarm.good.endswith("ep=4.ckpt.good")


def test_fixed_images_change_nothing_and_are_those_of_an_evaluation(
    host: Host, few_digits: Path, tmp_path: Path
) -> None:
    """The rank of all training images is that of the checkpoint's features, without the monitor."""
    found = []
    for name, monitor in (("off", None), ("on", {"on": "fixed", "metrics": ["effective_rank"]})):
        checkpoint = {"enabled": True, "dir": str(tmp_path / name), "frequency": 1, "keep_prev": True}
        settings = config("byol", str(few_digits / "train"), checkpoint=checkpoint, max_epochs=2)
        settings.backbone = {"name": "timm/test_resnet"}
        settings.monitor = monitor
        settings.regularizers = {"decorrelation": {"weight": 0.01}}
        pretrain(settings)
        found.append(states(tmp_path / name))
        found[-1]["random"] = torch.get_rng_state()
    off, on = found
    assert torch.equal(off.pop("random"), on.pop("random")) and off.keys() == on.keys()
    for epoch, state in off.items():
        for key, value in state["state_dict"].items():
            assert torch.equal(value, on[epoch]["state_dict"][key]), key
    (file,) = (tmp_path / "on").rglob("dimensionality.csv")
    header, *rows = (line.split(",") for line in file.read_text().splitlines())
    assert header == ["epoch", "step", "effective_rank", "z_effective_rank"]
    transform = evaluation_transforms(host, settings)[1]
    images = torch.stack([image for image, _ in ImageFolder(str(few_digits / "train"), transform)])
    for row in rows:
        (checkpoint,) = (c for c in (tmp_path / "on").rglob("*.ckpt") if checkpoint_epoch(c) == int(row[0]))
        with torch.no_grad():
            features = host.read_run(checkpoint).method(images)["feats"]
        assert float(row[2]) == pytest.approx(effective_rank(features, center=True).item(), rel=1e-4)


@pytest.mark.parametrize(
    ("block", "batches", "images"),
    [
        ({}, 10, 0),  # 128 of 640: too few to show a rank
        ({}, 20, 256),
        ({}, 1000, 1024),
        ({"every_n_epochs": 2}, 10, 256),
        ({"every_n_steps": 20}, 1000, 512),  # of two batches each
        ({"every_n_steps": 20}, math.inf, 512),
        ({"max_samples": 100}, 10, 100),
        ({"on": "fixed"}, 1, 1024),
        ({"metrics": ["alignment"]}, 1000, None),  # of two views, which fixed images do not have
    ],
)
def test_auto_is_fixed_where_it_costs_little(block: Any, batches: float, images: int | None) -> None:
    sizes = []
    support: Any = SimpleNamespace(plain_images=lambda trainer, module, size: sizes.append(size) or "")
    settings = read_blocks({"monitor": block}.get).monitor
    assert settings is not None
    trainer = SimpleNamespace(num_training_batches=batches, accumulate_grad_batches=2, world_size=1)
    monitor = BlockMonitor(settings, "backbone", None, support)
    assert (monitor.on == "train") == (images is None)
    if images is not None:
        assert monitor._plain_images(trainer, SimpleNamespace(batch_size=64)) is None
        assert sizes == ([images] if images else [])


def test_without_a_transform_it_looks_at_the_last_batches(
    host: Host,
    few_digits: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    method = build(small(few_digits, monitor={"on": "fixed", "metrics": ["effective_rank"]}))
    trainer = host.pl.Trainer(
        max_epochs=1, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(method, DataLoader(RandomViews(48, (32, 32)), batch_size=16))
    said = capfd.readouterr().err
    assert said.count("so it looks at the last batches of the training.") == 1
    assert len(next(each for each in trainer.callbacks if hasattr(each, "history")).history) == 1


@slow
def test_two_processes_roll_back_alike(few_digits: Path, tmp_path: Path) -> None:
    paths = [f"data.{split}_path={few_digits / split}" for split in ("train", "val")]
    command = [
        *(
            sys.executable,
            "-m",
            "solo_dimreg",
            "pretrain",
            "--config-path",
            "digits",
            "--config-name",
            "simclr",
        ),
        *("method=minlid_simclr", "backbone={name:timm/test_resnet}", "scheduler.name=none"),
        *("optimizer.batch_size=8", "optimizer.lr=0.02", "method_kwargs.proj_hidden_dim=32"),
        *("+regularizers.ldreg={weight:20.0,k:8,warmup_epochs:0}", "max_epochs=20", "checkpoint.dir=trained"),
        "+monitor.alarm={drawdown:0.4,patience:2,action:rollback,rollbacks:1}",
        *("+monitor.on=fixed", "accelerator=cpu", "devices=2", "strategy=ddp", "+enable_progress_bar=False"),
        *("data.num_workers=0", "+checkpoint.keep_prev=True", *paths),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("all learning rates are halved") == 1
    (event,) = alarms(tmp_path / "trained")
    good, after = (
        torch.load(tmp_path / event["checkpoint"], weights_only=True),
        states(tmp_path)[event["epoch"]],
    )
    assert all(torch.equal(good["state_dict"][key], value) for key, value in after["state_dict"].items())
    rates = {
        epoch: {group["lr"] for group in state["optimizer_states"][0]["param_groups"][:1]}
        for epoch, state in states(tmp_path).items()
    }
    (whole,), (half,) = rates[0], rates[max(rates)]
    assert half == whole / 2
