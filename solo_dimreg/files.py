"""Find, read and write files; each is written under a temporary name and then renamed."""

from __future__ import annotations

import errno
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock, SoftFileLock, Timeout

from solo_dimreg.errors import ConfigError


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it, so that it is never incomplete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(option: str, folder: Path) -> None:
    """Raise if a folder cannot be made or written into, before any work is done for it.

    Raises:
        ConfigError: the message names the option and the folder.
    """
    existing, what = folder, "has a null byte in its name" if "\0" in str(folder) else ""
    try:
        existing = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
        if not existing.is_dir():
            what = "is a file"
        with TemporaryDirectory(dir=existing, prefix=".solo-dimreg-"):
            pass  # permissions do not tell: an administrator has all of them, and cannot write everywhere
    except OSError:
        what = what or "cannot be written into"
    if what:
        raise ConfigError(
            f"{option}: {str(folder)!r} cannot be used: {str(existing)!r} {what}; it must be a folder."
        )


@contextmanager
def locked(option: str, folder: Path) -> Iterator[None]:
    """Lock a folder of results for one process; the lock ends with the process, even if that is killed.

    Raises:
        ConfigError: another process holds the lock, or the file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0.2)  # longer than is_locked holds it
    try:
        lock.acquire()
        if isinstance(lock, SoftFileLock):  # filelock's fallback outlives a process that is killed
            lock.release()
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    except Timeout as error:
        raise ConfigError(
            f"{option}: another run is writing into {str(folder)!r}; wait for it, or give another folder."
        ) from error
    except (OSError, NotImplementedError) as error:  # filelock raises the second for a missing flock
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{option}: {str(folder)!r} is on a file system without locks ({reason}), where two runs could "
            "mix their results; give a folder on another file system."
        ) from error
    try:
        yield
    finally:
        lock.release()


def is_locked(folder: Path) -> bool:
    """Return whether a process holds the lock of a folder."""
    if not (folder / ".lock").is_file():
        return False
    try:
        with FileLock(folder / ".lock", timeout=0):
            return False
    except Timeout:
        return True


def write_text(path: Path, text: str) -> None:
    """Write text in UTF-8, in one step."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON in one step; numbers that are not finite become null, since JSON has no NaN."""
    write_text(path, to_json(value) + "\n")


def to_json(value: Any) -> str:
    """Return indented JSON; numbers that are not finite become null, since JSON has no NaN."""
    return json.dumps(_without_nan(value), indent=2, allow_nan=False)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(each) for key, each in value.items()}
    return [_without_nan(each) for each in value] if isinstance(value, list | tuple) else value


def read_numbers(path: Path) -> Any:
    """Read numbers that :func:`write_json` wrote, with NaN for null."""
    return _with_nan(json.loads(path.read_text()))


def _with_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_nan(each) for each in value]
    return math.nan if value is None else value


def aside(target: Path) -> Path:
    """Return the first free path of ``<target>.bak``, ``<target>.bak2``, ..."""
    number = 1
    while (path := target.with_name(f"{target.name}.bak{number if number > 1 else ''}")).exists():
        number += 1
    return path


def check_image_folder(folder: Path) -> None:
    """Raise a `ConfigError` if there is no such folder of images."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is not a folder; it must be a folder of images.")


def no_run(folder: Path, unread: Sequence[str] = ()) -> ConfigError:
    """Return the error for a folder without runs, in which these things could not be read."""
    return ConfigError(
        f"{folder}: holds no run; give a folder of 'solo-dimreg benchmark' (with results.json), or a "
        "folder with checkpoint folders (with args.json) below it. " + " ".join(unread)
    )


def find_checkpoint(path: Path) -> tuple[Path, Path]:
    """Return the run's folder and its latest checkpoint.

    The path is a ``.ckpt`` file, its folder, or a folder with exactly one such folder below it.

    Raises:
        ConfigError: There is no run, or there are several.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such checkpoint; give a .ckpt file or the folder that holds it.")
    if path.is_file():
        folder, checkpoints = path.parent, [path]
    else:
        folders = sorted({file.parent for file in path.rglob("*.ckpt")})
        if len(folders) != 1:
            listed = ", ".join(str(f) for f in folders) or "none"
            raise ConfigError(f"{path}: must hold one run with checkpoints; found {listed}.")
        folder = folders[0]
        checkpoints = sorted(
            folder.glob("*.ckpt"), key=lambda file: (checkpoint_epoch(file), file.stat().st_mtime)
        )
    if not (folder / "args.json").is_file():
        raise ConfigError(f"{folder}: args.json is missing; solo-learn writes it beside its checkpoints.")
    return folder, checkpoints[-1]


def checkpoint_epoch(checkpoint: Path) -> int:
    """Return the epoch in the name of a checkpoint, counted from 0, or -1 without one."""
    return checkpoint_place(checkpoint)[0]


def checkpoint_place(checkpoint: Path) -> tuple[int, int]:
    """Return the epoch, counted from 0, and the step in the name of a checkpoint; -1 if one is missing.

    solo-learn's names end with ``-ep=3``. Lightning's names have ``epoch=3`` and ``step=500``, in either
    order. The name of the run may have such a part too, so the last one counts.
    """
    found = {"ep": -1, "step": -1}
    for name, number in re.findall(r"(?<![A-Za-z0-9])(ep|epoch|step)=(\d+)", checkpoint.name):
        found["ep" if name == "epoch" else name] = int(number)
    return found["ep"], found["step"]
