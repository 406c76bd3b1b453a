"""Print tables, and define the options that several commands share."""

from __future__ import annotations

import codecs
import os
import sys
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)
FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
FILE_TO_WRITE = click.Path(path_type=Path, dir_okay=False)
GAP = 2  # spaces between two columns
LABEL = 36  # a first column up to this width, the names of the lines, is not wrapped
# Cells that say how something ended.
STYLES = {
    "healthy": "green",
    "partly collapsed": "yellow",
    "cannot tell": "yellow",
    "better": "green",
    "holds here": "green",
    "yes": "green",
    "not shown": "yellow",
    "not shown here": "yellow",
    "opposite here": "red",
    "contradicted": "red",
    "worse": "red",
    "NO": "red",
}
# How a terminal without Unicode shows our signs.
ASCII = {"–": "-", "−": "-", "—": "-", "…": "...", "±": "+-", "×": "x", "≥": ">=", "≤": "<=", "·": "*"}


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print aligned columns, as wide as the terminal or 80 characters.

    Text is wrapped between its words. Nothing is cut off: a table whose words are too long for this width is
    wider. A terminal has colours unless ``NO_COLOR`` is set.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    cells = [[in_encoding(str(cell), encoding) for cell in row] for row in [header, *rows]]
    console = Console(color_system=None if os.environ.get("NO_COLOR") else "auto", soft_wrap=False)
    widths = column_widths(cells, console.width)
    console.width = sum(widths) + GAP * (len(widths) - 1)
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for name, width in zip(cells[0], widths, strict=True):
        table.add_column(Text(name), width=width)
    for row in cells[1:]:
        # The ways of a collapse may follow the word.
        styles = ["red" if cell.startswith("collapsed") else STYLES.get(cell, "") for cell in row]
        table.add_row(*map(Text, row, styles))
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        click.echo(line.rstrip())


def column_widths(cells: Sequence[Sequence[str]], room: int) -> list[int]:
    """Return a width for each column, so that the table fits into the room where its words allow it.

    Columns with more text are narrowed in proportion, and none below its longest word. The first column has
    the names of the lines, and is narrowed only if it is wide. The room includes the spaces between columns.
    """
    from rich.cells import cell_len

    columns = list(zip(*cells, strict=True))
    whole = [max(map(cell_len, column)) for column in columns]
    least = [max(cell_len(word) for cell in column for word in ["", *cell.split()]) for column in columns]
    least[0] = max(least[0], min(whole[0], LABEL))
    widths = list(whole)
    while sum(widths) + GAP * (len(widths) - 1) > room:
        narrowed = [i for i, width in enumerate(widths) if width > least[i]]
        if not narrowed:
            break
        widths[min(narrowed, key=lambda i: whole[i] / widths[i])] -= 1
    return widths


def in_encoding(text: str, encoding: str) -> str:
    """Return the text with characters that the encoding lacks replaced by similar ones."""
    return text.encode(encoding, "similar").decode(encoding)


def _similar(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that cannot be encoded: by their ASCII form, or a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    parts = unicodedata.normalize("NFKD", "".join(ASCII.get(each, each) for each in characters))
    plain = (each if each.isascii() else "?" for each in parts if not unicodedata.combining(each))
    return "".join(plain), error.end


codecs.register_error("similar", _similar)


def show_similar_characters() -> None:
    """Let standard output and error replace what a terminal without Unicode cannot show."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="similar")


def writable(out: Path) -> Path:
    """Return the folder of ``--out``; raise if it cannot be written into."""
    from solo_dimreg.files import check_writable

    check_writable("--out", out := out.expanduser())
    return out


def example(*lines: str) -> str:
    """Return the end of a help text, with command lines that click does not wrap."""
    return "\n  ".join(["\b\nExample:" if len(lines) == 1 else "\b\nExamples:", *lines])


jobs_option = click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Runs at the same time.  [default: one on each GPU, or else on each core]",
)


def out_option(default: str, text: str = "Folder of the results.") -> Callable[[Any], Any]:
    """Return a decorator that adds ``--out``."""
    return click.option("--out", type=FOLDER, default=Path(default), help=text)


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
