"""Writes files whole: under a temporary name, then renamed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

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
    existing = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        what = "cannot be written into" if existing.is_dir() else "is a file"
        raise ConfigError(f"{option}: {str(folder)!r} cannot be used: {str(existing)!r} {what}.")


def write_text(path: Path, text: str) -> None:
    """Writes text whole, in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes JSON whole."""
    write_text(path, json.dumps(value, indent=2) + "\n")
