"""The errors that a user can fix, and warnings; messages name the nearest valid spelling."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterable
from typing import Any


class DimregError(Exception):
    """The base class of every error that solo-dimreg raises on purpose; ``status`` is the exit status."""

    status = 2


class ConfigError(DimregError, ValueError):
    """An error for a wrong setting; the message names the key, the value and what is allowed."""


class TrainingError(DimregError):
    """An error for a training that cannot continue, for a reason that its settings do not show."""

    status = 1


class DivergenceError(TrainingError):
    """An error for a training whose loss is no longer finite."""

    status = 3


class CollapseError(TrainingError):
    """An error for a training that the alarm stopped, because the representation collapsed."""

    status = 3


class PluginError(DimregError):
    """An error for a plugin that fails, or registers a name of another; the message names the package."""


class MissingPackageError(DimregError, ImportError):
    """An error for a missing optional package; the message says how to install it."""


class HostError(DimregError):
    """An error for a missing solo-learn, or one that lacks what was asked for."""


def _open_bars() -> list[Any]:
    """Return the progress bars, Lightning's included, whose line has not ended, from the lowest upwards.

    A bar that nobody has closed can outlive the stream that it writes to.
    """
    kind = getattr(sys.modules.get("tqdm.std"), "tqdm", None)
    bars = [bar for bar in list(kind._instances) if not bar.disable] if kind else []
    open_ = [bar for bar in bars if not getattr(bar.fp, "closed", False)]
    return sorted(open_, key=lambda bar: abs(bar.pos), reverse=True)


def write_line(line: str) -> None:
    """Print a line to standard error, at the start of a line whatever progress bars there are."""
    for bar in _open_bars():
        if bar.fp.isatty():
            bar.clear()  # drawn again at its next step
        else:
            bar.fp.write("\n")
            bar.fp.flush()
    print(line, file=sys.stderr, flush=True)


def write_last_line(line: str) -> None:
    """Print the last line of a program; progress bars stay as they are above it."""
    for bar in _open_bars():
        bar.leave = bar.leave or bar.pos == 0
        bar.close()  # otherwise the garbage collection closes it, after this line
    print(line, file=sys.stderr, flush=True)


def warn(line: str) -> None:
    """Print a warning in one line, once for all processes."""
    if first_process():
        write_line(f"warning: {line}")


# The variables that torchrun, srun, mpirun and Lightning's launcher set: the number of the process among all
# or on its node, and the number of its node. The first process has 0 in all of them.
RANKS = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK"),
    *("SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "JSM_NAMESPACE_RANK"),
)


def first_process() -> bool:
    """Return whether this process is the first of all processes of a run, over all nodes."""
    distributed = sys.modules.get("torch.distributed")  # spawned processes have no such variables
    if distributed and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() == 0
    return all(os.environ.get(name) in (None, "", "0") for name in RANKS)


def one_line(error: DimregError) -> str:
    """Return the message of an error, without the traceback that a worker process of a loader puts before."""
    text = str(error).strip()
    if not text.startswith("Caught "):
        return text
    return text.splitlines()[-1].partition(": ")[2]


def brief(error: Exception) -> str:
    """Return the type of an error of another package and the first line of its message, up to 300 signs."""
    line = str(error).strip().partition("\n")[0][:300].rstrip(".")
    return f"{type(error).__name__}: {line}"


def unforeseen(what: str, error: Exception) -> ConfigError:
    """Return the error for a config that passed our checks, and that solo-learn cannot "build" or "train"."""
    return ConfigError(
        f"solo-learn cannot {what} this config ({brief(error)}). HYDRA_FULL_ERROR=1 shows where."
    )


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the valid name closest to ``name``, or an empty string."""
    matches = difflib.get_close_matches(name, list(valid), n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def unknown(kind: str, name: str, valid: Iterable[str]) -> str:
    """Return the message for a name that is not among ``valid``."""
    names = sorted(valid)
    return f"Unknown {kind} {name!r}.{nearest(name, names)} Valid: {', '.join(names) or 'none'}."
