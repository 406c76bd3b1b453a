"""The alarm on curves, and in trainings that collapse on purpose."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig
from support import small

from solo_dimreg.config.blocks import AlarmSettings, MonitorSettings, read_blocks
from solo_dimreg.errors import CollapseError, ConfigError
from solo_dimreg.files import checkpoint_epoch, find_checkpoint
from solo_dimreg.monitor.alarm import GOOD, Alarm, describe
from solo_dimreg.solo_learn import Host, register
from solo_dimreg.training.pretraining import pretrain


def read_monitor(block: Any) -> MonitorSettings | None:
    return read_blocks({"monitor": block}.get).monitor


def looks(values: list[float], alarm: Alarm | None = None) -> list[bool]:
    alarm = alarm or Alarm(0.5, 3)
    return [alarm.look(value, epoch) for epoch, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "sounds"),
    [
        ([100, 40, 30, 20], 3),  # below half of the peak, three looks in a row
        ([10, 100, 50, 50, 50], 4),  # at half; the peak is a running one
        ([100, 40, 30, 60, 20, 20, 20], 6),  # it had risen again
        ([100, 40, 30, 90, 45, 45, 45], 6),  # of the peak of all looks, not of the last rise
        ([100, 40, math.nan, 30, 20], 4),  # a look without a value is none
        ([100, 51, 51, 51, 51], None),
        ([100, 10, 10], None),
        ([0, 0, 0, 0], None),
        ([-1, -5, -9, -9], None),
    ],
)
def test_curves(values: list[float], sounds: int | None) -> None:
    alarm = Alarm(0.5, 3)
    found = looks(values, alarm)
    assert [i for i, sounded in enumerate(found) if sounded] == ([] if sounds is None else [sounds])
    assert sounds is None or alarm.since == min(
        i for i in range(sounds + 1) if sounds - i <= 2 + sum(math.isnan(v) for v in values)
    )


def test_looks_beyond_a_limit_count_as_falls_do() -> None:
    """In a row with them, on a curve that rises, and where the metric itself is undefined."""
    alarm = Alarm(0.5, 3)
    curve = [(100.0, False), (40.0, False), (120.0, True), (math.nan, True), (130.0, False), (140.0, True)]
    found = [alarm.look(value, i, beyond=beyond) for i, (value, beyond) in enumerate(curve)]
    assert found == [False, False, False, True, False, False]
    assert (alarm.peak, alarm.count, alarm.since) == (140, 1, 5)
    # A look within the limits ends the row, also without the metric; one without both is none.
    undefined = [False, True, None, True, True]
    found = [alarm.look(math.nan, 6 + i, beyond=beyond) for i, beyond in enumerate(undefined)]
    assert found == [False, False, False, False, True]


def test_it_sounds_once_a_fall() -> None:
    assert looks([9, 1, 1, 1, 1, 1, 9, 1, 1, 1]) == [False] * 3 + [True] + [False] * 5 + [True]


@given(
    rises=st.lists(st.floats(0, 1e6), min_size=1, max_size=30),
    drawdown=st.floats(0.01, 0.99),
    patience=st.integers(1, 5),
)
def test_it_is_silent_on_rising_curves(rises: list[float], drawdown: float, patience: int) -> None:
    curve = [sum(rises[: i + 1]) for i in range(len(rises))]
    assert not any(looks(curve, Alarm(drawdown, patience)))


@given(values=st.lists(st.floats(0, 1e3), min_size=2, max_size=20), cut=st.integers(1, 19))
def test_a_state_goes_on_where_it_was(values: list[float], cut: int) -> None:
    first, second = Alarm(0.3, 2), Alarm(0.3, 2)
    before = looks(values[:cut], first)
    second.load_state_dict(first.state_dict())
    after = [second.look(value, cut + i) for i, value in enumerate(values[cut:])]
    assert before + after == looks(values, Alarm(0.3, 2))


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"drawdwn": 0.5}, r"monitor.alarm.drawdwn: unknown key .* Did you mean 'drawdown'"),
        ({"metric": "efective_rank"}, r"monitor.alarm.metric: .*Did you mean 'effective_rank'"),
        ({"metric": "uniformity"}, r"monitor.alarm.metric: Unknown falling metric 'uniformity'"),
        ({"metric": 3}, r"monitor.alarm.metric: Unknown falling metric '3'"),
        ({"drawdown": 1.0}, r"monitor.alarm.drawdown: 1.0 is not allowed; .*above 0 and below 1"),
        ({"drawdown": True}, r"monitor.alarm.drawdown: True is not allowed"),
        ({"drawdown": "half"}, r"monitor.alarm.drawdown: 'half' is not allowed"),
        ({"patience": 0}, r"monitor.alarm.patience: 0 is not allowed; .*whole number >= 1"),
        ({"limits": {"z_effective_rank": 0.5}}, r"alarm.limits: Unknown share 'z_effective_rank'"),
        ({"limits": {"z_mean_shar": 0.5}}, r"alarm.limits: .*Did you mean 'z_mean_share'"),
        ({"limits": {"z_mean_share": 1.5}}, r"alarm.limits.z_mean_share: 1.5 is not allowed; .*at most 1"),
        ({"limits": 0.9}, r"alarm.limits: 0.9 is not a mapping"),
        ({"action": "abort"}, r"monitor.alarm.action: Unknown action 'abort'.*stop, warn"),
        ({"enabled": 0}, r"monitor.alarm.enabled: 0 is not allowed; it must be true or false"),
        ({"enabled": False, "patience": 0}, r"monitor.alarm.patience: 0 is not allowed"),
        (True, r"monitor.alarm: True is not a mapping"),
    ],
)
def test_wrong_blocks_are_refused(block: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_monitor({"alarm": block})


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"on": "val", "alarm": {"metric": "lidar"}}, r"alarm.metric: 'lidar' needs two views"),
        ({"alarm": {"metric": "z_mutual_information"}}, r"alarm.metric: .* leave out the z_"),
    ],
)
def test_figures_that_would_never_be_there_are_refused(block: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_monitor(block)


def test_its_figure_is_monitored() -> None:
    settings = read_monitor({"metrics": ["lid"], "alarm": {"metric": "z_effective_rank"}})
    assert settings is not None and settings.metrics == ["lid", "effective_rank"]
    assert settings.alarm == AlarmSettings(metric="z_effective_rank")
    assert read_monitor({"alarm": {}}).alarm == AlarmSettings()  # type: ignore[union-attr]
    asked = read_monitor({"metrics": ["lid"], "alarm": {"metric": "lid", "limits": {"z_mean_share": 0.9}}})
    assert asked is not None and asked.metrics == ["lid", "mean_share"]


def collapsing(few_digits: Path, folder: str, action: str, **changes: Any) -> DictConfig:
    """Min LID with a big weight, which falls within a few epochs."""
    checkpoint = {"enabled": True, "dir": folder, "frequency": 1, "keep_prev": False}
    settings = small(few_digits, "minlid_simclr", checkpoint=checkpoint, **{"max_epochs": 12, **changes})
    settings.data.val_path = str(few_digits / "val")
    settings.regularizers = {"ldreg": {"weight": 20.0, "k": 8, "warmup_epochs": 0}}
    settings.scheduler = {"name": "none"}
    settings.monitor = {"metrics": ["lid"], "alarm": {"drawdown": 0.4, "patience": 2, "action": action}}
    return settings


def good_ones(folder: str) -> list[Path]:
    return sorted(Path(folder).rglob(f"*{GOOD}"))


def test_a_collapse_stops_the_training(
    few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = (
        r"MinLIDSimCLR may have collapsed: effective_rank is .* "
        r"since epoch (\d+) \(step \d+\); the last good .*\.good\."
    )
    with pytest.raises(CollapseError, match=message) as error:
        pretrain(collapsing(few_digits, "trained", "stop"))
    assert error.value.status == 3
    (good,) = good_ones("trained")
    (since,) = re.findall(r"since epoch (\d+)", str(error.value))
    since = int(since) - 1  # the message counts from 1, the names of checkpoints from 0
    assert checkpoint_epoch(good) == since - 1 and str(good) in str(error.value)
    (last,) = Path("trained").rglob("*.ckpt")
    assert checkpoint_epoch(last) == since  # the next look was the second
    assert find_checkpoint(good) == (good.parent, good) and find_checkpoint(good.parent)[1] == last
    assert torch.load(good, weights_only=True)["epoch"] == since - 1
    assert (good.parent / "dimensionality.png").is_file()


def test_a_warning_is_one_line_and_the_training_goes_on_also_resumed(
    few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    pretrain(collapsing(few_digits, "whole", "warn"))
    (line,) = re.findall(r"warning: MinLIDSimCLR .*", capfd.readouterr().err)
    since = int(re.findall(r"since epoch (\d+)", line)[0])

    # Ended between the two looks.
    pretrain(collapsing(few_digits, "parts", "warn", max_epochs=since))
    assert "warning: MinLIDSimCLR" not in capfd.readouterr().err and not good_ones("parts")
    settings = collapsing(few_digits, "parts", "warn")
    settings.resume_from_checkpoint = str(next(Path("parts").rglob("*.ckpt")))
    pretrain(settings)
    (again,) = re.findall(r"warning: MinLIDSimCLR .*", capfd.readouterr().err)
    assert again.partition("; the last")[0] == line.partition("; the last")[0]
    states = [
        torch.load(max(Path(folder).rglob("*.ckpt"), key=checkpoint_epoch), weights_only=True)
        for folder in ("whole", "parts")
    ]
    whole, parts = (state["callbacks"]["DimensionalityMonitor"]["alarm"] for state in states)
    unnamed = {"good": "", "named": ""}  # paths
    assert {**whole, **unnamed} == {**parts, **unnamed} and whole["count"] >= 2


def test_a_training_without_a_fall_is_silent(
    few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = collapsing(few_digits, "trained", "stop", max_epochs=6)
    settings.method, settings.regularizers = "simclr", None
    pretrain(settings)
    assert "collapsed" not in capfd.readouterr().err and not good_ones("trained")


@pytest.mark.parametrize("metric", ["z_lid", "mutual_information"])
def test_without_a_projector_its_embeddings_are_refused(
    metric: str, few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = collapsing(few_digits, "trained", "stop")
    settings.method, settings.regularizers, settings.monitor.alarm.metric = "simclr", None, metric
    kind = register().methods["simclr"]
    whole = kind.configure_callbacks

    def without(self: Any) -> list[Any]:
        callbacks = whole(self)
        callbacks[-1].names["embeddings"] = None
        return callbacks

    monkeypatch.setattr(kind, "configure_callbacks", without)
    with pytest.raises(ConfigError, match=r"monitor.alarm.metric: there is no projector"):
        pretrain(settings)


def test_the_command_ends_with_status_3(here: Any, few_digits: Path, tmp_path: Path) -> None:
    command = ["pretrain", "--config-path", "digits", "--config-name"]
    command += ["simclr", "method=minlid_simclr", "backbone={name:timm/test_resnet}", "scheduler.name=none"]
    command += ["optimizer.batch_size=16", "optimizer.lr=0.02", "method_kwargs.proj_hidden_dim=32"]
    command += ["+regularizers.ldreg={weight:20.0,k:8,warmup_epochs:0}", "max_epochs=20"]
    command += ["+monitor.alarm={drawdown:0.4,patience:2,action:stop}", "checkpoint.dir=trained"]
    command += [f"data.{split}_path={few_digits / split}" for split in ("train", "val")]
    done = here(*command)
    assert done.returncode == 3, done.stderr
    assert len(re.findall(r"error: MinLIDSimCLR may have collapsed", done.stderr)) == 1
    assert "Traceback" not in done.stderr and len(good_ones(str(tmp_path / "trained"))) == 1


def test_solo_learns_scripts_end_with_status_3_too(
    host: Host,
    few_digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    """They do not know our errors; ``raises`` is set by our own commands alone."""
    monkeypatch.chdir(tmp_path)
    build = type(host).build_method

    def as_scripts_do(self: Host, arguments: Any) -> Any:
        method = build(self, arguments)
        monkeypatch.setattr(
            type(method), "raises", property(lambda self: False, lambda self, value: None), raising=False
        )
        return method

    monkeypatch.setattr(type(host), "build_method", as_scripts_do)
    with pytest.raises(SystemExit) as end:
        pretrain(collapsing(few_digits, "trained", "stop"))
    assert end.value.code == 3
    assert len(re.findall(r"error: MinLIDSimCLR may have collapsed", capfd.readouterr().err)) == 1


def test_wandb_is_alerted(few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The alert stands in the file that ``wandb sync`` sends, its texts as they are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    settings = collapsing(few_digits, "trained", "warn", max_epochs=8)
    settings.wandb = {"enabled": True, "project": "test", "offline": True}
    pretrain(settings)
    import wandb

    wandb.finish()
    (file,) = Path.cwd().rglob("*.wandb")
    sent = file.read_bytes()
    assert sent.count(b"Dimensional collapse") == 1 and b"WARN" in sent
    assert b"MinLIDSimCLR may have collapsed: effective_rank is " in sent


def test_a_checkpoint_that_was_named_is_kept_when_the_figure_rises_again(tmp_path: Path) -> None:
    for epoch in range(2):
        (tmp_path / f"a-ep={epoch}.ckpt").touch()
    alarm = Alarm(0.5, 1)
    for epoch, value in enumerate([10.0, 10.0, 1.0]):
        sounds = alarm.look(value, epoch)
        alarm.keep_good([*tmp_path.rglob("*.ckpt")])
    assert sounds
    named = Path(alarm.good)
    alarm.named = alarm.good  # as the monitor does when it says so
    resumed = Alarm(0.5, 1)
    resumed.load_state_dict(alarm.state_dict())
    for epoch, value in enumerate([9.0, 1.0, 9.0], start=3):
        resumed.look(value, epoch)
        resumed.keep_good([*tmp_path.rglob("*.ckpt")])
    resumed.forget()
    assert named.is_file()


@pytest.mark.parametrize(
    ("names", "since", "kept"),
    [
        # Lightning's own names, in either order; solo-learn's; the run's own name may look like them.
        (["step=300-epoch=2.ckpt", "step=400-epoch=3.ckpt"], (3, 400), "step=300-epoch=2.ckpt"),
        (["epoch=2-step=300.ckpt", "epoch=3-step=350.ckpt"], (3, 400), "epoch=3-step=350.ckpt"),
        (["epoch=0-step=900.ckpt", "epoch=0-step=1000.ckpt"], (0, 1100), "epoch=0-step=1000.ckpt"),
        (["simclr-ep=9-x-ep=1.ckpt", "simclr-ep=9-x-ep=2.ckpt"], (2, 30), "simclr-ep=9-x-ep=1.ckpt"),
        (["step=500-epoch=3.ckpt"], (3, 500), None),
        (["last.ckpt", "epoch=1-step=2.ckpt"], (1, 3), "epoch=1-step=2.ckpt"),
    ],
)
def test_the_last_checkpoint_before_the_fall(
    names: list[str], since: tuple[int, int], kept: str | None, tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).touch()
    alarm = Alarm(0.5, 3)
    alarm.look(10.0, 0, 1)
    alarm.look(1.0, *since)
    alarm.keep_good([*tmp_path.glob("*.ckpt")])
    assert alarm.good == (str(tmp_path / f"{kept}{GOOD}") if kept else "")


def test_the_message_counts_from_one_and_reads_right() -> None:
    alarm = Alarm(0.8, 1)
    alarm.look(10.0, 2, 30)
    alarm.look(1.0, 3, 40)
    said = (
        "effective_rank is 1 and was 10 (a fall of 80% or more); it has looked so, since epoch 4 (step 40); "
    )
    assert said in describe(alarm, "SimCLR", "effective_rank", 1.0, {})
    alarm.patience = 2
    alarm.look(1.0, 4, 50)
    both = describe(alarm, "X", "lid", 1.0, {"z_mean_share": (0.981, 0.97)})
    assert "X may have collapsed: z_mean_share is 0.981 (the limit is 0.97), and lid is 1 and was 10" in both
    assert "; it has looked so for 2 looks in a row, since epoch 4 (step 40); " in both
    assert "lid" not in describe(alarm, "X", "lid", 9.0, {"z_mean_share": (0.981, 0.97)})
