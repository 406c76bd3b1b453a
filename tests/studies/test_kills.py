"""A benchmark and a claim, killed five times each, end with what an undisturbed run finds.

Run as a script, this file is the process whose children are killed; it then imports no pytest.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import torch

import solo_dimreg
from solo_dimreg.solo_learn import register
from solo_dimreg.studies.claims.page import write_outcomes
from solo_dimreg.studies.engine import run_study
from solo_dimreg.studies.study import Study, read_study

# Each kill waits for the checkpoint of an epoch, and from then on for a random part of so many seconds. The
# first kill leaves a training to resume, the third a training that has ended without its record and results.
# An epoch takes some hundredths of a second, in which the process that kills may not run: hence so many.
EPOCHS = 8
LAST = EPOCHS - 1
KILLS = ((0, 0.0), (1, 0.3), (LAST, 0.0), (LAST, 1.0), (LAST, 2.0))


def small(study: Study, images: Path, seeds: int) -> Study:
    """Return a study with short trainings."""
    paths = [f"data.{split}_path={images / split}" for split in ("train", "val")]
    small = ["optimizer.batch_size=32", "data.num_workers=0", "backbone.name=timm/test_resnet"]
    overrides = [f"max_epochs={EPOCHS}", "scheduler.warmup_epochs=1", *small, *paths]
    linear = ["max_epochs=2", "optimizer.batch_size=32"]
    return study.changed(overrides=overrides, linear=linear, seeds=seeds)


def benchmark(images: Path) -> None:
    run_study(small(read_study("quick").only(["adadim"]), images, 1), Path("benchmark"))


def claims(images: Path) -> None:
    study = small(read_study("claims").variant("digits").asking(["adadim-late"]), images, 2)
    results = run_study(study, Path("claims"))
    write_outcomes(Path("claims"), results, study.claims(), study.claims(), {"why": study.why}, "")


def start(work, folder: Path, images: Path) -> int:
    """Begins or goes on with it in a process group of its own; forked, so that torch is imported once."""
    child = os.fork()
    os.setpgid(child, child)  # by both, whichever comes first
    if child:
        return child
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    try:
        work(images)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def finish(work, folder: Path, images: Path) -> None:
    """Runs what is left of it."""
    _, status = os.waitpid(start(work, folder, images), 0)
    assert status == 0, status


def has_ended(process: int) -> bool:
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def has_written(folder: Path, epoch: int) -> bool:
    return any(name.endswith(f"ep={epoch}.ckpt") for *_, names in os.walk(folder) for name in names)


# Imported when they are needed; here once, before the processes are forked.
LAZY = ("solo_dimreg.reports.comparison", "solo_dimreg.training.pretraining", "torch._dynamo")

if __name__ == "__main__":
    torch.set_num_threads(1)
    register()
    for name in LAZY:
        importlib.import_module(name)
    chance, images = random.Random(8), Path(sys.argv[1])
    for each in (benchmark, claims):
        finish(each, Path("whole"), images)
        folder = 0
        for epoch, seconds in KILLS:
            process = start(each, Path(f"parts{folder}"), images)
            while not has_ended(process) and not has_written(Path(f"parts{folder}"), epoch):
                time.sleep(0.001)
            time.sleep(chance.uniform(0, seconds))
            os.killpg(process, signal.SIGKILL)
            status = os.waitpid(process, 0)[1]
            if not os.WIFSIGNALED(status):  # it had ended, and another one is begun
                assert status == 0, status
                folder += 1
        finish(each, Path(f"parts{folder}"), images)
    sys.exit()


import pytest  # noqa: E402

from solo_dimreg.reports.run_files import LOGGED  # noqa: E402

TIMES = ("pretrain_seconds", "pretrain_seconds_std", "finished", "checkpoint")


def without_times(value):
    """Return what is the same in another run.

    A checkpoint lies in a folder with a random name. Lightning writes metrics.csv late, so a kill loses the
    last epoch of the curves in it.
    """
    if isinstance(value, dict):
        return {
            key: without_times(each) for key, each in value.items() if key not in (*TIMES, *LOGGED.values())
        }
    return [without_times(each) for each in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_what_was_killed_five_times_ends_with_the_same(tmp_path: Path, few_digits: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(Path(solo_dimreg.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    )
    command = [sys.executable, __file__, str(few_digits)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("benchmark/results.json", "claims/claims.json"):
        whole, *others = (json.loads(file.read_text()) for file in sorted(tmp_path.glob(f"*/{name}"))[::-1])
        assert others and all(without_times(other) == without_times(whole) for other in others)
    assert done.stdout.count("resuming after epoch") >= 2
