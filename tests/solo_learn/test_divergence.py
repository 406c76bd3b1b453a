"""Trainings that diverge stop and say so; checkpoints are whole and finite, whatever happens."""

from __future__ import annotations

import json
import math
import os
import re
import resource
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from zipfile import is_zipfile

import pytest
import torch
from omegaconf import DictConfig
from support import config, small
from torch.utils._python_dispatch import TorchDispatchMode

from solo_dimreg.config.blocks import read_blocks
from solo_dimreg.errors import ConfigError, DivergenceError, TrainingError
from solo_dimreg.nn import LDReg
from solo_dimreg.solo_learn import Host
from solo_dimreg.solo_learn.divergence import DivergenceCallback
from solo_dimreg.training.pretraining import pretrain

STEPS = 7  # an epoch, of 16 of the 120 images
SHORT = ("optimizer.batch_size=16", "data.num_workers=0", "method_kwargs.proj_hidden_dim=32")


def settings_of(few_digits: Path, folder: Path, **changes: Any) -> DictConfig:
    checkpoint = {"enabled": True, "dir": str(folder / "trained"), "frequency": 1, "keep_prev": False}
    settings = config("simclr", str(few_digits / "train"), checkpoint=checkpoint, **changes)
    settings.scheduler = {"name": "none"}
    settings.backbone = {"name": "timm/test_resnet"}
    return settings


def command(few_digits: Path, *overrides: str) -> list[str]:
    paths = [f"data.{split}_path={few_digits / split}" for split in ("train", "val")]
    start = [sys.executable, "-m", "solo_dimreg", "pretrain", "--config-path", "digits", "--config-name"]
    return [
        *start,
        "ldreg_simclr",
        "regularizers.ldreg.k=8",
        "checkpoint.dir=trained",
        *SHORT,
        *paths,
        *overrides,
    ]


def checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / "trained").rglob("*.ckpt"))


def test_a_training_that_diverges_stops_with_the_last_finite_checkpoint(
    few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    calls: list[int] = []

    def forward(self: LDReg, views: Any, others: Any = ()) -> torch.Tensor:
        calls.append(1)
        return views[0].sum() * (float("inf") if len(calls) > STEPS + 1 else 0.0)

    monkeypatch.setattr(LDReg, "forward", forward)
    block = {"ldreg": {"weight": 1.0, "warmup_epochs": 0}}
    settings = settings_of(
        few_digits, tmp_path, max_epochs=9, regularizers=block, divergence={"patience": STEPS + 2}
    )
    with pytest.raises(
        DivergenceError, match=rf"SimCLR has diverged: {STEPS + 2} steps in a row .*ep=0\.ckpt"
    ):
        pretrain(settings)
    assert len(calls) == 2 * STEPS + 3
    said = capfd.readouterr().err
    assert len(re.findall(r"Step \d+ of SimCLR: the loss is .*; it came from its term ldreg = ", said)) == 1
    (kept,) = checkpoints(tmp_path)
    state = torch.load(kept, weights_only=True)["state_dict"]
    assert all(torch.isfinite(value).all() for value in state.values() if value.is_floating_point())


def test_the_term_is_named(
    few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(LDReg, "forward", lambda self, views, others=(): views[0].sum() * float("inf"))
    settings = settings_of(
        few_digits,
        tmp_path,
        max_epochs=1,
        regularizers={"ldreg": {"weight": 1.0, "warmup_epochs": 0}},
        divergence={"patience": 2},
    )
    with pytest.raises(DivergenceError, match="no checkpoint was written"):
        pretrain(settings)
    assert re.search(
        r"the loss is -?(inf|nan); it came from its term ldreg = -?(inf|nan)", capfd.readouterr().err
    )
    assert not checkpoints(tmp_path)


def test_a_single_bad_step_is_told_and_survived(
    few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    """As a loss scaler would leave it: the weights stay finite."""
    calls: list[int] = []

    def forward(self: LDReg, views: Any, others: Any = ()) -> torch.Tensor:
        calls.append(1)
        return torch.full((), float("nan") if len(calls) == 2 else 0.0) + 0 * views[0].detach().sum()

    monkeypatch.setattr(LDReg, "forward", forward)
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self, closure=None: closure and closure())
    pretrain(
        settings_of(
            few_digits, tmp_path, max_epochs=1, regularizers={"ldreg": {"weight": 1.0, "warmup_epochs": 0}}
        )
    )
    assert len(calls) > 3 and capfd.readouterr().err.count("it came from its term ldreg = nan") == 1
    assert len(checkpoints(tmp_path)) == 1


class Module:
    """Stands in for a method: it has the attributes that the divergence callback reads."""

    def __init__(self) -> None:
        self.last_terms: dict[str, torch.Tensor] = {}
        self.raises = True

    def parameters(self) -> list[torch.Tensor]:
        return []


def test_no_step_between_two_looks_waits_for_the_device(capfd: pytest.CaptureFixture) -> None:
    """A tensor on the device ``meta`` has no value, so that reading it is an error."""
    callback, module = DivergenceCallback(cast(Any, None), patience=4), Module()

    def step(number: int, device: str, last: bool = False, loss: float = 0.0, term: float = 0.0) -> None:
        module.last_terms = {"ldreg": torch.tensor(term, device=device)}
        trainer = SimpleNamespace(global_step=number, is_last_batch=last)
        callback.on_train_batch_end(trainer, module, {"loss": torch.tensor(loss, device=device)})

    for number in (1, 2, 3):
        step(number, "meta")
    for last in (False, True):  # the fourth step of the patience, and the last one of an epoch
        with pytest.raises(RuntimeError, match="meta"):
            step(4, "meta", last)
    callback = DivergenceCallback(cast(Any, None), patience=4)
    for number, value in enumerate((0.0, math.nan, math.inf, 0.0, math.nan, math.nan, math.nan), start=1):
        step(number, "cpu", loss=value, term=value)
    assert callback.bad == 0 and callback.wait == 1
    with pytest.raises(DivergenceError, match="4 steps in a row had no finite loss"):
        step(8, "cpu", loss=math.nan)
    said = capfd.readouterr().err
    assert said == "Step 2 of Module: the loss is nan; it came from its term ldreg = nan.\n"


class Waits(TorchDispatchMode):
    """Collects the places of our package that read a tensor's value during a training step."""

    OPERATIONS = ("_local_scalar_dense", "is_nonzero", "nonzero")

    def __init__(self) -> None:
        super().__init__()
        self.ours: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in self.OPERATIONS:
            frames = [f for f in traceback.extract_stack()[:-1] if "/torch/" not in f.filename]
            steps = {"training_step", "on_train_batch_end"} & {frame.name for frame in frames}
            if steps and "/solo_dimreg/" in frames[-1].filename:
                self.ours.append(f"{frames[-1].filename}:{frames[-1].lineno}")
        return func(*args, **(kwargs or {}))


def test_no_training_step_of_ours_reads_a_value(few_digits: Path, tmp_path: Path) -> None:
    terms = ("decorrelation", "effective_rank", "uniformity", "wasserstein_uniformity")
    settings = settings_of(
        few_digits,
        tmp_path,
        max_epochs=1,
        regularizers={name: {"weight": 0.1} for name in terms},
        projector={"normalization": "shuffled_dbn"},
    )
    with Waits() as waits:
        pretrain(settings)
    assert waits.ours == []


def test_an_epoch_without_targets_is_not_a_divergence(
    few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    """DeepCluster v2 has none before it has clustered; solo-learn's loss is nan then, and moves nothing."""
    monkeypatch.chdir(tmp_path)
    pretrain(small(few_digits, "deepclusterv2", max_epochs=2, divergence={"patience": 2}))
    assert "the loss is" not in capfd.readouterr().err


def test_the_command_ends_with_status_3(here: Any, few_digits: Path) -> None:
    overrides = (
        "backbone.name=timm/test_resnet",
        "max_epochs=3",
        "optimizer.name=sgd",
        "optimizer.lr=1e9",
        "scheduler.name=none",
        "monitor=null",
    )
    done = here(*command(few_digits, *overrides)[3:])
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("has diverged") == 1 and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_full_disk_ends_with_one_line_and_no_part_of_a_checkpoint(few_digits: Path, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, 4_000_000))

    done = subprocess.run(
        command(few_digits, "max_epochs=1"), cwd=tmp_path, capture_output=True, text=True, preexec_fn=limit
    )
    assert done.returncode == 1, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "the checkpoint cannot be written" in line and "Traceback" not in done.stderr
    assert not checkpoints(tmp_path) and not list((tmp_path / "trained").rglob(".*partial"))


@pytest.mark.parametrize(("limit", "what"), [(50_000, "the checkpoint"), (100, "the settings of the run")])
def test_what_cannot_be_written_whole_leaves_what_was_there(
    few_digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture, limit: int, what: str
) -> None:
    """The disk is full after the first epoch, or before the next run.

    What is printed meanwhile is kept in memory, since the limit holds for the files of pytest too.
    """
    settings = settings_of(few_digits, tmp_path, max_epochs=1, enable_progress_bar=False)
    pretrain(settings)
    (first,) = checkpoints(tmp_path)
    arguments = (first.parent / "args.json").read_bytes()
    settings.max_epochs, settings.resume_from_checkpoint = 2, str(first)
    sizes = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, sizes[1]))
    try:
        with pytest.raises(TrainingError, match=f"{what} cannot be written"):
            pretrain(settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, sizes)
    assert checkpoints(tmp_path) == [first] and is_zipfile(first)
    assert not list(tmp_path.rglob("*partial"))
    for file in tmp_path.rglob("args.json"):
        assert json.loads(file.read_text())
    assert (first.parent / "args.json").read_bytes() == arguments


@pytest.mark.slow
def test_a_full_file_system_loses_nothing(few_digits: Path, tmp_path: Path) -> None:
    """20 MB have no room for a checkpoint of 34, 48 MB have for one, from which the run goes on with more."""
    unshare = ["unshare", "--map-root-user", "--mount", "sh", "-ec"]
    mount = "mount -t tmpfs -o size=20m tmpfs trained"
    (tmp_path / "trained").mkdir()
    if subprocess.run([*unshare, mount], cwd=tmp_path, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    left = "find trained -name '*ep=*' -printf '%f '"
    script = f"""{mount}
        "$@" >&2 && exit 9 || test $? = 1; {left}; echo /
        mount -o remount,size=48m trained
        "$@" >&2 && exit 9 || test $? = 1; {left}; echo /
        mount -o remount,size=1g trained
        "$@" >&2; {left}"""
    run = command(few_digits, "max_epochs=2", "auto_resume.enabled=True", "+limit_train_batches=2")
    done = subprocess.run([*unshare, script, "sh", *run], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [sorted(re.findall(r"ep=\d\.\w+", part)) for part in done.stdout.split("/")]
    assert found == [[], ["ep=0.ckpt"], ["ep=0.ckpt", "ep=1.ckpt"]]
    errors = re.findall("error: .*", done.stderr)  # one may stand behind what is left of a progress bar
    assert len(errors) == 2 and all("the checkpoint cannot be written" in line for line in errors)
    assert "there is no earlier checkpoint" in errors[0] and "ep=0.ckpt is kept" in errors[1]
    assert "Traceback" not in done.stderr


def test_a_checkpoint_that_cannot_be_removed_ends_no_training(
    few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    remove, failures = os.remove, [FileNotFoundError(2, "gone"), PermissionError(13, "not allowed")]

    def refused(path: Any, *args: Any, **kwargs: Any) -> None:
        if str(path).endswith(".ckpt") and failures:
            raise failures.pop(0)
        remove(path, *args, **kwargs)

    monkeypatch.setattr(os, "remove", refused)
    pretrain(settings_of(few_digits, tmp_path, max_epochs=4))
    assert [path.name[-9:] for path in checkpoints(tmp_path)] == ["ep=0.ckpt", "ep=1.ckpt", "ep=3.ckpt"]
    warned = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning: ")]
    (line,) = (line for line in warned if "only 28 steps" not in line)
    assert "ep=1.ckpt: the previous checkpoint cannot be removed" in line and "not allowed" in line


def test_a_second_training_of_a_trainer_saves_as_the_first(
    host: Host, few_digits: Path, tmp_path: Path
) -> None:
    settings = settings_of(few_digits, tmp_path)
    arguments = host.pretraining_arguments(settings)
    method, data = host.build_method(arguments), host.training_data(arguments)
    checkpointer = host.checkpointer(arguments, tmp_path / "second")
    checkpointer.frequency = 1
    options = {**host.trainer_settings(settings), "callbacks": [checkpointer], "logger": False}
    trainer = host.pl.Trainer(**{**options, "enable_checkpointing": False, "max_epochs": 1})
    for epochs in (1, 2):
        trainer.fit_loop.max_epochs = epochs
        trainer.fit(method, **data)
        (last,) = (tmp_path / "second").rglob(f"*ep={epochs - 1}.ckpt")
        assert is_zipfile(last)
    assert not [*(tmp_path / "second").rglob(".*.partial")]


@pytest.mark.slow
def test_a_kill_during_the_write_leaves_whole_checkpoints(few_digits: Path, tmp_path: Path) -> None:
    run = subprocess.Popen(
        command(few_digits, "max_epochs=50"),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 240
        while not (partial := list(tmp_path.glob("trained/*/*/.*.partial"))) or not checkpoints(tmp_path):
            assert run.poll() is None and time.monotonic() < end
        assert partial
    finally:
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
    assert checkpoints(tmp_path) and all(map(is_zipfile, checkpoints(tmp_path)))


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"patients": 3}, r"divergence\.patients: unknown key .* Did you mean 'patience'"),
        ({"patience": 0}, r"divergence\.patience: 0 is not allowed"),
        ({"patience": True}, r"divergence\.patience: True is not allowed"),
        (7, r"divergence: 7 is not a mapping"),
    ],
)
def test_wrong_settings_are_refused(block: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_blocks({"divergence": block}.get)
