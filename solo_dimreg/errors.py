"""The errors that a user can mend, and how they name the nearest valid spelling."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterable
from typing import Any


class DimregError(Exception):
    """Base of every error that solo-dimreg raises on purpose; ``status`` is what a command ends with."""

    status = 2


class ConfigError(DimregError, ValueError):
    """A setting is wrong: the message names the key, the value and what would be right."""


class TrainingError(DimregError):
    """A training cannot go on, for a reason that its settings do not show."""

    status = 1


class DivergenceError(TrainingError):
    """The loss of a training is no longer finite."""

    status = 3


class CollapseError(TrainingError):
    """A figure of the representation has fallen so far that its training was to be stopped."""

    status = 3


class PluginError(DimregError):
    """A plugin failed to import or claims a name that another one has: the message names the package."""


class MissingPackageError(DimregError, ImportError):
    """A package that only some need is not installed: the message says how to get it."""


class HostError(DimregError):
    """No usable solo-learn was found, or the one found lacks what was asked for."""


def _open_bars() -> list[Any]:
    """Return the progress bars that stand on a line of their own without its end, Lightning's included."""
    bars = getattr(sys.modules.get("tqdm.std"), "tqdm", None)
    open_ = [bar for bar in list(bars._instances) if not bar.disable] if bars else []
    return sorted(open_, key=lambda bar: abs(bar.pos), reverse=True)


def write_line(line: str) -> None:
    """Print a line to standard error, which begins on a line of its own whatever bars there are."""
    for bar in _open_bars():
        if bar.fp.isatty():
            bar.clear()  # drawn again at its next step
        else:
            bar.fp.write("\n")
            bar.fp.flush()
    print(line, file=sys.stderr, flush=True)


def write_last_line(line: str) -> None:
    """Print the line with which a program ends; progress bars stay as they are above it."""
    for bar in _open_bars():
        bar.leave = bar.leave or bar.pos == 0
        bar.close()  # which is left to the garbage collection otherwise, and comes after this line then
    print(line, file=sys.stderr, flush=True)


def warn(line: str) -> None:
    """Prints what a user should know and can train without mending, in one line, once for all processes."""
    if first_process():
        write_line(f"warning: {line}")


# What torchrun, srun, mpirun and Lightning's launcher set: the number of the process, in all or on its node,
# and of its node. The first process has 0 in all of them.
RANKS = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK"),
    *("SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "JSM_NAMESPACE_RANK"),
)


def first_process() -> bool:
    """Return whether this process is the first of all that run together, on whichever node."""
    distributed = sys.modules.get("torch.distributed")  # processes that were spawned know it from there alone
    if distributed and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() == 0
    return all(os.environ.get(name) in (None, "", "0") for name in RANKS)


def one_line(error: DimregError) -> str:
    """The message; of one that comes from a worker process of a loader, without the traceback before it."""
    text = str(error).strip()
    if not text.startswith("Caught "):
        return text
    return text.splitlines()[-1].partition(": ")[2]


def unforeseen(what: str, error: Exception) -> ConfigError:
    """What solo-learn says, before a first step is done, of a config that we found nothing wrong with.

    Args:
        what: What it was to do with the config: "build", "train".
        error: What it raised.
    """
    reason = str(error).strip().partition("\n")[0]
    return ConfigError(
        f"solo-learn cannot {what} this config ({type(error).__name__}: {reason}). "
        "HYDRA_FULL_ERROR=1 shows where."
    )


def nearest(name: str, valid: Iterable[str]) -> str:
    """Returns ``" Did you mean 'x'?"`` for the valid name closest to ``name``, or an empty string."""
    matches = difflib.get_close_matches(name, list(valid), n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def unknown(kind: str, name: str, valid: Iterable[str]) -> str:
    """The message for a name that is not among ``valid``."""
    names = sorted(valid)
    return f"Unknown {kind} {name!r}.{nearest(name, names)} Valid: {', '.join(names) or 'none'}."
