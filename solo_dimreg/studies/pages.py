"""Write tables of measured numbers into Markdown pages, from the JSON files of finished runs.

Two comments mark the place of a table in a page, ``<!-- claims -->`` and ``<!-- /claims -->``. The text
between them is replaced, and everything else is left as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from solo_dimreg.errors import ConfigError
from solo_dimreg.files import write_text
from solo_dimreg.reports.summary import results_table

SHOWN = 3  # numbers of a claim that a table shows


def write_page(page: Path, name: str, files: Sequence[Path], table: Callable[[list[Any]], str]) -> None:
    """Replace the table of one name in a Markdown page.

    Args:
        page: The page.
        name: The name in the marks.
        files: The JSON files with the results.
        table: The function that returns Markdown for their contents.

    Raises:
        ConfigError: A file cannot be read or has another content, or the page has no such marks.
    """
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


def claims_tables(contents: Sequence[Mapping[str, Any]]) -> str:
    """Return the outcomes of ``claims.json`` as Markdown, with a heading and a table for each paper."""
    outcomes = [outcome for content in contents for outcome in content["outcomes"]]
    verdicts = [outcome["verdict"] for outcome in outcomes]
    counts = {verdict: verdicts.count(verdict) for verdict in ("holds", "not shown", "contradicted")}
    lines = [
        f"**{counts['holds']} of the {len(outcomes)} claims hold, {counts['not shown']} are not shown, "
        f"{counts['contradicted']} are contradicted.**"
    ]
    for paper in dict.fromkeys(outcome["paper"] for outcome in outcomes):
        own = [_claim(outcome) for outcome in outcomes if outcome["paper"] == paper]
        header = ["claim", "what it says", "published", "measured here", "95 % interval", "verdict"]
        lines += ["", f"### {paper}", "", *markdown_table(header, own)]
    return "\n".join(lines) + "\n"


def _claim(outcome: Mapping[str, Any]) -> list[str]:
    name = outcome["name"]
    return [
        f'<a id="{name}"></a>`{name}`',
        outcome["sentence"],
        f"{outcome['published']} ({outcome['place']})",
        *estimate_cells(outcome),
        f"**{outcome['verdict']}**",
    ]


def estimate_cells(outcome: Mapping[str, Any]) -> list[str]:
    """Return the first means of an outcome in ``claims.json`` and their intervals, as two cells."""
    estimates = outcome["estimates"][:SHOWN]
    units = outcome.get("units", [outcome["unit"]] * len(estimates))
    here = [f"{each['mean']:+.3g} {unit}".strip() for each, unit in zip(estimates, units, strict=False)]
    intervals = [interval(each["low"], each["high"]) for each in estimates]
    if more := len(outcome["numbers"]) - len(estimates):
        here, intervals = [*here, f"and {more} more"], [*intervals, "..."]
    return ["; ".join(here), "; ".join(intervals)]


def interval(low: float, high: float) -> str:
    """Return an interval as text."""
    return f"{low:+.3g} to {high:+.3g}"


def costs_tables(contents: Sequence[Mapping[str, Any]]) -> str:
    """Return the outputs of ``bench --json``, from one or several machines, as Markdown."""
    lines: list[str] = []
    for content in contents:
        torch = ".".join(str(content["torch"]).split(".")[:2])
        machine = f"{content['instructions']}, {content['threads']} threads, torch {torch}"
        ratios, shares = _ratios(content["figures"]), list(_shares(content["figures"]))
        lines += [f"### {machine}", ""]
        if ratios:
            header = ["loss", "features", *dict.fromkeys(f["of"] for f in content["figures"] if _is_loss(f))]
            lines += [*markdown_table(header, _cells(ratios, header[2:])), ""]
        if shares:
            lines += [*markdown_table(["term", "adds", "to"], shares), ""]
    return "\n".join(lines).rstrip() + "\n"


def _is_loss(figure: Mapping[str, Any]) -> bool:
    return not str(figure["of"]).startswith("time ")


def _ratios(figures: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, str]]:
    found: dict[tuple[str, str], dict[str, str]] = {}
    for figure in filter(_is_loss, figures):
        digits = ".2f" if "memory" in figure["of"] else ".1f"
        found.setdefault((figure["name"], figure["shape"]), {})[figure["of"]] = f"{figure['ratio']:{digits}}"
    return found


def _cells(ratios: Mapping[tuple[str, str], Mapping[str, str]], columns: Sequence[str]) -> list[list[str]]:
    return [[*key, *(values.get(column, "") for column in columns)] for key, values in ratios.items()]


def _shares(figures: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    for figure in figures:
        if figure["of"].startswith("time of a step over that of "):
            share = 100 * (figure["ratio"] - 1)
            text = f"{share:.0f} %" if round(share) > 0 else "less than 0.5 %"
            yield [figure["name"], text, f"a step of {figure['of'].split()[-1]}"]
        elif not _is_loss(figure):
            yield [
                figure["name"],
                f"{100 * figure['ratio']:.1f} %",
                figure["of"].removeprefix("time over that of "),
            ]


def benchmark_table(contents: Sequence[Mapping[str, Any]]) -> str:
    """Return the summary of ``results.json`` as a Markdown table."""
    header, rows = results_table([line for content in contents for line in content["summary"]])
    return "\n".join(markdown_table(header, rows)) + "\n"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]
