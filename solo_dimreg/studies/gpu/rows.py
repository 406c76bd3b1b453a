"""The rows of a section's table, appended to a file as they are made: a kill leaves those before it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


class CannotRun(Exception):
    """Raised by a check for what this machine cannot run; the message is the reason."""


def row_of(name: str, status: str, note: str = "", values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a line of a table: the numbers by their columns; the error or the reason of a skip is a note."""
    return {"name": name, "status": status, "values": dict(values or {}), "note": note}


class Rows:
    """Runs checks and appends a row for each to a file, one JSON object a line.

    Args:
        file: The file, which may exist.
        seconds: No check is begun after this time.
    """

    def __init__(self, file: Path, seconds: float) -> None:
        self.file, self.seconds = file, seconds
        self.start = time.monotonic()

    def run(self, name: str, check: Callable[[], Mapping[str, Any] | None]) -> dict[str, Any]:
        """Append and return the row of a check, which returns its values; an error fails this row only."""
        try:
            if time.monotonic() - self.start > self.seconds:
                raise CannotRun(f"no time left of the {self.seconds:.0f} s of its section")
            row = row_of(name, PASSED, values=check())
        except CannotRun as reason:
            row = row_of(name, SKIPPED, str(reason))
        except ModuleNotFoundError as error:
            package = str(error.name).partition(".")[0]
            own = package == "solo_dimreg"
            note = in_one_line(error) if own else f"needs {package}"
            row = row_of(name, FAILED if own else SKIPPED, note)
        except Exception as error:
            row = row_of(name, FAILED, in_one_line(error))
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        passed = time.monotonic() - self.start
        print(f"[{passed:5.1f} s] {name}: {row['status']} {row['note']}".rstrip(), flush=True)
        return row


def in_one_line(error: BaseException) -> str:
    """Return the type of an error and its message in one line; of a process's traceback, the last line."""
    text = str(error).strip()
    text = " ".join((text.splitlines()[-1] if "Traceback (most" in text else text).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def main(sections: Mapping[str, Callable[[Rows, torch.device], None]]) -> None:
    """Run the section that the command line names: ``SECTION DEVICE FILE SECONDS``."""
    import torch

    name, device, file, seconds = sys.argv[1:]
    torch.manual_seed(0)
    sections[name](Rows(Path(file), float(seconds)), torch.device(device))
