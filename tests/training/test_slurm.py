"""A job of SLURM's that is queued again; of SLURM there are here its variables and what it does then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from zipfile import is_zipfile

import pytest
from support import has_file, until

SLURM = {
    "SLURM_NTASKS": "1", "SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost",
    "SLURM_JOB_NODELIST": "localhost",
}  # fmt: skip


@pytest.mark.slow
def test_a_job_that_is_queued_again_is_saved_and_not_ended_by_us(few_digits: Path, tmp_path: Path) -> None:
    asked, scontrol = tmp_path / "asked", tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\nkill -TERM $PPID\nsleep 1\necho "$@" >> {asked}\n')
    scontrol.chmod(0o755)
    paths = [f"data.{split}_path={few_digits / split}" for split in ("train", "val")]
    small = [
        "optimizer.batch_size=16",
        "data.num_workers=0",
        "backbone.name=timm/test_resnet",
        "monitor=null",
        "regularizers.ldreg.k=8",
    ]
    name = ["pretrain", "--config-path", "digits", "--config-name", "ldreg_simclr"]
    overrides = ["max_epochs=999", "method_kwargs.proj_hidden_dim=32", "checkpoint.dir=trained"]
    environment = {**os.environ, **SLURM, "PATH": f"{scontrol.parent}:{os.environ['PATH']}"}
    run = subprocess.Popen(
        [sys.executable, "-m", "solo_dimreg", *name, *overrides, *small, *paths],
        cwd=tmp_path,
        env={**environment, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: has_file(tmp_path, ".ckpt"), run)
        run.send_signal(signal.SIGUSR1)
        until(lambda: asked.is_file() and asked.read_text() == "requeue 77\n", run)
        saved = list(tmp_path.rglob("hpc_ckpt_1.ckpt"))
        assert len(saved) == 1 and is_zipfile(saved[0])
    finally:
        run.kill()
        run.wait()
