"""Writes files whole: under a temporary name, then renamed."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock, SoftFileLock, Timeout

from solo_dimreg.errors import ConfigError


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name and renames it, so that it is never half there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(option: str, folder: Path) -> None:
    """Refuses a folder that cannot be made or written into, before any work is done for it.

    Raises:
        ConfigError: names the option and the folder.
    """
    existing, what = folder, "has a null byte in its name" if "\0" in str(folder) else ""
    try:
        existing = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
        what = what or ("" if existing.is_dir() else "is a file")
        if not what:
            with TemporaryDirectory(dir=existing, prefix=".solo-dimreg-"):
                pass  # permissions alone do not tell: the administrator has all, and may not write everywhere
    except OSError:
        what = "cannot be written into"
    if what:
        raise ConfigError(
            f"{option}: {str(folder)!r} cannot be used: {str(existing)!r} {what}; it must be a folder."
        )


@contextmanager
def locked(option: str, folder: Path) -> Iterator[None]:
    """Keeps a folder of results to one process at a time; the lock ends with the process, however it ends.

    Raises:
        ConfigError: another process has it, or the file system keeps no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
        if isinstance(lock, SoftFileLock):  # what filelock falls back to outlives a process that is killed
            lock.release()
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    except Timeout as error:
        raise ConfigError(
            f"{option}: another run is writing into {str(folder)!r}; wait for it, or give another folder."
        ) from error
    except (OSError, NotImplementedError) as error:
        raise ConfigError(
            f"{option}: {str(folder)!r} is on a file system that keeps no locks ({_reason(error)}): "
            "two runs could mix their results there; give a folder on another one."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def write_text(path: Path, text: str) -> None:
    """Writes text whole, in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes JSON whole."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def checkpoint_epoch(checkpoint: Path) -> int:
    """The epoch in the name of a checkpoint (solo-learn's, Lightning's), counted from 0; -1 without one."""
    match = re.search(r"ep(?:och)?=(\d+)", checkpoint.stem)
    return int(match.group(1)) if match else -1
