"""How a training ends that cannot go on: with one line and a status, on however many processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
import torch.distributed as dist

from solo_dimreg.distributed import rank, world_size
from solo_dimreg.errors import TrainingError, write_last_line

# Lightning 2 looks at its child processes every five seconds, and kills the first one when one has failed.
HEAD_START = 6.0
_parent = os.getppid()
# Set by our Hydra plugin.
SWEEP = "SOLO_DIMREG_REGISTERED"


class Stopped(SystemExit):
    """The end of a process whose error is told by another one, or is told already."""


def stop(module: Any, error: TrainingError, cause: BaseException | None = None) -> None:
    """Ends the training: our commands show the error, solo-learn's scripts one line, and a status.

    A script would show the traceback of an exception and end with status 1. Of several processes the first
    one says it; where that one is gone, the second.
    """
    if not _speaks():
        time.sleep(HEAD_START)
        raise Stopped(error.status)
    if getattr(module, "raises", False) or wants_exceptions():
        raise error from cause
    write_last_line(f"error: {error}")
    raise Stopped(error.status)


def wants_exceptions() -> bool:
    """Whether a script is to show where an error comes from, or is a sweep, whose other jobs go on."""
    return os.environ.get("HYDRA_FULL_ERROR") == "1" or SWEEP in os.environ


def _speaks() -> bool:
    if rank() != 1:
        return rank() == 0
    time.sleep(0.3)  # the connections of a process that is killed end before its children are another's
    return os.getppid() != _parent


@contextmanager
def signals_of_slurm(trainer: Any) -> Iterator[None]:
    """Leaves SIGTERM to Lightning where it queues a job of SLURM's again.

    It saves on SIGUSR1 and asks for the job to be queued again, upon which SLURM sends SIGTERM, which it
    passes over or minds at the end of the step: a handler of ours would cut off what is asked, or the saving.
    """
    if not getattr(trainer._accelerator_connector.cluster_environment, "auto_requeue", False):
        yield
        return
    ours = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    except SystemExit as end:
        if end.code is None:  # Lightning 2 has minded it
            raise SystemExit(128 + signal.SIGTERM) from end
        raise
    finally:
        signal.signal(signal.SIGTERM, ours)


def most(count: int, module: Any) -> int:
    """The largest of the counts of all processes, which all have to ask for it."""
    if world_size() == 1:
        return count
    counted = torch.tensor(count, device=module.device)
    dist.all_reduce(counted, dist.ReduceOp.MAX)
    return int(counted)


def is_lost_process(error: BaseException) -> bool:
    """Whether an error says that another process of the training does not answer any more."""
    if world_size() == 1:
        return False
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def let_processes_end(strategy: Any) -> None:
    """Keeps Lightning 1.6 from killing the other processes while they end by themselves."""
    kill = getattr(strategy, "reconciliate_processes", None)
    if kill is None:
        return

    @wraps(kill)
    def unless_they_end(*args: Any, **kwargs: Any) -> None:
        error = sys.exc_info()[1]
        if error is None or not (isinstance(error, TrainingError | Stopped) or is_lost_process(error)):
            kill(*args, **kwargs)

    strategy.reconciliate_processes = unless_they_end
