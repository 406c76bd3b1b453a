"""Two processes of one training: what ends one of them ends the other, with one line."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import is_zipfile

import pytest
from support import has_file, until

MINUTE = 60.0


@contextmanager
def training(
    few_digits: Path, folder: Path, epochs: int, *more: str, file_size: int = resource.RLIM_INFINITY
) -> Iterator[subprocess.Popen]:
    """Two processes over gloo, in a session of their own; none is left behind."""
    paths = [f"data.{split}_path={few_digits / split}" for split in ("train", "val")]
    small = [
        "optimizer.batch_size=16",
        "data.num_workers=0",
        "backbone.name=timm/test_resnet",
        "monitor=null",
    ]
    two = ["accelerator=cpu", "devices=2", "strategy=ddp", "+enable_progress_bar=False"]
    name = ["pretrain", "--config-path", "digits", "--config-name", "ldreg_simclr"]
    overrides = [f"max_epochs={epochs}", "method_kwargs.proj_hidden_dim=32", "checkpoint.dir=trained"]
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    with (folder / "said").open("w") as said:
        run = subprocess.Popen(
            [sys.executable, "-m", "solo_dimreg", *name, *overrides, *two, *small, *paths, *more],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, limit)),
        )
    try:
        yield run
    finally:
        if members(run):
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()


def members(run: subprocess.Popen) -> set[int]:
    """The processes of the session that are not yet gone."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == run.pid and state != "Z":
            found.add(int(folder.name))
    return found


def ends_within_a_minute(run: subprocess.Popen) -> bool:
    end = time.monotonic() + MINUTE
    while members(run) and time.monotonic() < end:
        run.poll()
        time.sleep(0.1)  # between looks at the list of processes
    return not members(run)


@pytest.mark.slow
def test_a_full_disk_of_the_first_process_ends_both(few_digits: Path, tmp_path: Path) -> None:
    with training(few_digits, tmp_path, epochs=1, file_size=500_000) as run:
        assert run.wait(timeout=240) == 1
        assert ends_within_a_minute(run)
    said = (tmp_path / "said").read_text()
    (line,) = (line for line in said.splitlines() if "error: " in line)
    assert "the checkpoint cannot be written" in line and "Traceback" not in said
    assert not [*tmp_path.rglob("*.ckpt"), *tmp_path.rglob("*partial")]


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_a_process_that_is_killed_ends_the_other(few_digits: Path, tmp_path: Path, which: int) -> None:
    with training(few_digits, tmp_path, epochs=999) as run:
        until(lambda: has_file(tmp_path, ".ckpt"), run)
        (second,) = members(run) - {run.pid}  # not the larger number: the kernel's numbers begin again
        os.kill((run.pid, second)[which], signal.SIGKILL)
        assert ends_within_a_minute(run)
        status = run.wait()
    said = (tmp_path / "said").read_text()
    lines = [line for line in said.splitlines() if "error: " in line]
    if which == 1 and status == -signal.SIGKILL:  # Lightning 2 looks at its children every five seconds
        assert "terminated with code -9" in said
    else:
        assert len(lines) == 1 and "another of the 2 processes of this training has ended" in lines[0]
        assert status == (-signal.SIGKILL, 1)[which]
    assert "Traceback" not in said and all(map(is_zipfile, tmp_path.rglob("*.ckpt")))


@pytest.mark.slow
def test_an_alarm_stops_both(few_digits: Path, tmp_path: Path) -> None:
    """Min LID with a big weight, which falls within a few epochs."""
    loss = ["method=minlid_simclr", "regularizers.ldreg={weight:20.0,k:8,warmup_epochs:0}"]
    training_ = ["scheduler.name=none", "optimizer.name=sgd", "optimizer.lr=0.04"]
    monitor = "monitor={metrics:[lid],alarm:{drawdown:0.4,patience:2,action:stop}}"
    with training(few_digits, tmp_path, 40, *loss, *training_, monitor) as run:
        assert run.wait(timeout=240) == 3
        assert ends_within_a_minute(run)
    said = (tmp_path / "said").read_text()
    (line,) = (line for line in said.splitlines() if "error: " in line)
    assert "MinLIDSimCLR may have collapsed" in line and "Traceback" not in said
    (good,) = tmp_path.rglob("*.ckpt.good")
    assert good.name in line and is_zipfile(good)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_told_once(few_digits: Path, tmp_path: Path) -> None:
    rate = ["optimizer.name=sgd", "optimizer.lr=1e9", "scheduler.name=none", "+divergence={patience:2}"]
    with training(few_digits, tmp_path, 9, *rate) as run:
        assert run.wait(timeout=240) == 3
        assert ends_within_a_minute(run)
    said = (tmp_path / "said").read_text()
    assert said.count(": the loss is ") == 1 and said.count("error: ") == 1 and "Traceback" not in said
    assert said.count("No checkpoint is written") <= 1


PROCESS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from support import config
from solo_dimreg.distributed import rank
from solo_dimreg.training.pretraining import pretrain

two = {"devices": "2", "strategy": "ddp", "limit_train_batches": 1, "enable_progress_bar": False}
settings = config("simclr", sys.argv[2], checkpoint={"enabled": True, "dir": "trained"}, **two)
settings.backbone = {"name": "timm/test_resnet"}
folder = pretrain(settings)
Path(f"folder{rank()}").write_text(str(folder))
"""


@pytest.mark.slow
def test_the_processes_of_torchrun_agree_on_the_folder(few_digits: Path, tmp_path: Path) -> None:
    """It starts each by itself; so does srun, and Lightning's own launcher is tried above."""
    (tmp_path / "process.py").write_text(PROCESS)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    arguments = ["process.py", str(Path(__file__).parents[1]), str(few_digits / "train")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = ((tmp_path / f"folder{rank}").read_text() for rank in (0, 1))
    (checkpoint,) = (tmp_path / "trained").rglob("*.ckpt")
    assert tmp_path / first == tmp_path / second == checkpoint.parent
