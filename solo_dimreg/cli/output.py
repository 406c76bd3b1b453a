"""What the commands share: printing tables, and the options that write one into a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints left-aligned columns."""
    table = [list(header), *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    for row in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def page_options(default: str) -> Callable[[Any], Any]:
    """Return a decorator that adds ``--page`` and ``--from``, which write a table into a Markdown page."""
    page = click.option(
        "--page", type=FILE, help="Run nothing; write the table of a finished run into this Markdown page."
    )
    files = click.option(
        "--from",
        "files",
        type=FILE,
        multiple=True,
        help=f"With --page: JSON file of the results; may be repeated.  [default: {default}]",
    )
    return lambda command: page(files(command))
