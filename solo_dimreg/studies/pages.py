"""Write tables of measured numbers into Markdown pages, from the JSON files of finished runs.

Two comments mark the place of a table in a page, ``<!-- costs -->`` and ``<!-- /costs -->``. The text
between them is replaced, and everything else is left as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from solo_dimreg.errors import ConfigError
from solo_dimreg.files import write_text


def write_page(page: Path, name: str, files: Sequence[Path], table: Callable[[list[Any]], str]) -> None:
    """Replace a table in a Markdown page; raise ConfigError if a file is wrong or the page has no marks."""
    try:
        contents = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        text = page.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"--page: {error}") from error
    before, opened, rest = text.partition(f"<!-- {name} -->\n")
    _, closed, after = rest.partition(f"<!-- /{name} -->")
    if not opened or not closed:
        raise ConfigError(f"--page: {page} must hold the lines <!-- {name} --> and <!-- /{name} -->.")
    try:
        made = table(contents)
    except (KeyError, TypeError, AttributeError) as error:
        listed = ", ".join(map(str, files))
        raise ConfigError(f"--from: {listed} is not a result of {name} ({error!r} is missing).") from error
    write_text(page, f"{before}{opened}\n{made}\n{closed}{after}")


def costs_tables(contents: Sequence[Mapping[str, Any]]) -> str:
    """Return the outputs of ``bench --json``, from one or several machines, as Markdown."""
    lines: list[str] = []
    for content in contents:
        torch = ".".join(str(content["torch"]).split(".")[:2])
        lines += [f"### {content['instructions']}, {content['threads']} threads, torch {torch}", ""]
        ratios: dict[tuple[str, str], dict[str, str]] = {}  # the cells by loss and shape, and by ratio
        for cost in content["figures"]:
            if not cost["of"].startswith("time "):
                digits = ".2f" if "memory" in cost["of"] else ".1f"
                ratios.setdefault((cost["name"], cost["shape"]), {})[cost["of"]] = f"{cost['ratio']:{digits}}"
        columns = list(dict.fromkeys(column for row in ratios.values() for column in row))
        rows = [[*key, *(row.get(column, "") for column in columns)] for key, row in ratios.items()]
        shares = [_share(cost) for cost in content["figures"] if cost["of"].startswith("time ")]
        for header, cells in ((["loss", "features", *columns], rows), (["term", "adds", "to"], shares)):
            lines += [*markdown_table(header, cells), ""] if cells else []
    return "\n".join(lines).rstrip() + "\n"


def _share(cost: Mapping[str, Any]) -> list[str]:
    """Return the cells that say what part of a step or of an epoch a term or the monitor adds."""
    of_step, of_epoch = "time of a step over that of ", "time over that of "
    if cost["of"].startswith(of_step):
        share = 100 * (cost["ratio"] - 1)
        text = f"{share:.0f} %" if round(share) > 0 else "less than 0.5 %"
        return [cost["name"], text, f"a step of {cost['of'].removeprefix(of_step)}"]
    return [cost["name"], f"{100 * cost['ratio']:.1f} %", cost["of"].removeprefix(of_epoch)]


def benchmark_table(contents: Sequence[Mapping[str, Any]]) -> str:
    """Return the summary of ``results.json`` as a Markdown table."""
    from solo_dimreg.reports.summary import results_table  # the tables of a GPU do without it

    header, rows = results_table([line for content in contents for line in content["summary"]])
    return "\n".join(markdown_table(header, rows)) + "\n"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]
