"""End a training that cannot continue with one line and a status, on any number of processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from solo_dimreg.distributed import rank, world_size
from solo_dimreg.errors import DimregError, TrainingError, one_line, write_last_line

# Lightning 2 checks its child processes every five seconds; if one has failed, it kills the first one.
HEAD_START = 6.0
_parent = os.getppid()
# The variable that our Hydra plugin sets.
SWEEP = "SOLO_DIMREG_REGISTERED"


class Stopped(SystemExit):
    """The exit of a process whose error another process tells, or has told already."""


def stop(module: Any, error: TrainingError, cause: BaseException | None = None) -> None:
    """End the training with its error as one line and a status; our own commands get the exception.

    In a script, an exception would show a traceback and end with status 1. With several processes, the first
    one prints the line; if that one is gone, the second does.
    """
    if not _prints_the_error():
        time.sleep(HEAD_START)  # the first process must print the line before it is killed
        raise Stopped(error.status)
    if getattr(module, "raises", False):
        raise error from cause
    end(error, cause)


def end(error: DimregError, cause: BaseException | None = None) -> NoReturn:
    """End a script with one line and the error's status.

    The error is raised if the user asked Hydra for full errors, and in a sweep, whose other jobs continue.
    """
    if os.environ.get("HYDRA_FULL_ERROR") == "1" or SWEEP in os.environ:
        raise error from cause
    write_last_line(f"error: {one_line(error)}")
    raise Stopped(error.status) from error


def _prints_the_error() -> bool:
    """Return whether this is the first process, or the second after the loss of the first."""
    if rank() != 1:
        return rank() == 0
    time.sleep(0.3)  # a killed process loses its connections before its children get another parent
    return os.getppid() != _parent


@contextmanager
def signals_of_slurm(trainer: Any) -> Iterator[None]:
    """Leave SIGTERM to Lightning if it requeues SLURM jobs.

    Lightning saves on SIGUSR1 and asks SLURM to requeue the job. SLURM then sends SIGTERM, which Lightning
    ignores or handles at the end of the step. A handler of ours would interrupt the request or the saving.
    """
    if not getattr(trainer._accelerator_connector.cluster_environment, "auto_requeue", False):
        yield
        return
    ours = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    except SystemExit as end:
        if end.code is None:  # Lightning 2 has handled SIGTERM
            raise SystemExit(128 + signal.SIGTERM) from end
        raise
    finally:
        signal.signal(signal.SIGTERM, ours)


def max_over_processes(count: int, module: Any) -> int:
    """Return the largest count of all processes; every process must call this."""
    if world_size() == 1:
        return count
    counted = torch.tensor(count, device=module.device)
    dist.all_reduce(counted, dist.ReduceOp.MAX)
    return int(counted)


def is_lost_process(error: BaseException) -> bool:
    """Return whether an error says that another process of the training no longer answers."""
    if world_size() == 1:
        return False
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def let_processes_end(strategy: Any) -> None:
    """Keep Lightning 1.6 from killing the other processes while they end by themselves."""
    kill = getattr(strategy, "reconciliate_processes", None)
    if kill is None:
        return

    @wraps(kill)
    def unless_they_end(*args: Any, **kwargs: Any) -> None:
        error = sys.exc_info()[1]
        if error is None or not (isinstance(error, TrainingError | Stopped) or is_lost_process(error)):
            kill(*args, **kwargs)

    strategy.reconciliate_processes = unless_they_end
