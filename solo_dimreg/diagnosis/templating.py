"""Render pages from jinja2 templates; an HTML page is one file, which needs neither network nor script."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from matplotlib.figure import Figure

from solo_dimreg import plots

if TYPE_CHECKING:
    from solo_dimreg.metrics.explanations import Explanation

TEMPLATES = Path(__file__).parent / "templates"
# A sign repeats the colour of a verdict, for readers who cannot see it.
SIGNS = {"good": "✓", "warning": "!", "bad": "✗", "unknown": "?", "reference": "–"}


@dataclass(frozen=True)
class Card:
    """A plot with its explanation, and the name of its file without ``.png``."""

    figure: Figure
    explanation: Explanation
    name: str = ""


def render(template: Path, **values: object) -> str:
    """Return the page that a template makes of the values.

    It can use the templates in its own folder and in ``TEMPLATES``. Values are escaped in HTML; in Markdown,
    the filter ``plain`` escapes them.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, TEMPLATES]),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"SIGNS": SIGNS, "addresses": addresses, "number_columns": number_columns}
    environment.filters["plain"] = escape_markdown
    return environment.get_template(template.name).render(values)


def addresses(figure: Figure) -> tuple[str, str]:
    """Return ``data:`` addresses of the figure's picture for a light and for a dark page."""
    light, dark = plots.svg(figure)
    return data_address(light, "svg+xml"), data_address(dark, "svg+xml")


def data_address(picture: bytes, kind: str) -> str:
    """Return the ``data:`` address that holds a picture, for example of the kind ``png``."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def number_columns(rows: Sequence[Sequence[str]]) -> list[bool]:
    """Return for each column whether it holds only numbers; the first column has the names of the rows."""
    return [bool(i) and all(map(_is_number, column)) for i, column in enumerate(zip(*rows, strict=True))]


def _is_number(cell: str) -> bool:
    number = r"-?\d[\d.]*( ± \d[\d.]*| \(-?\d[\d.]* to -?\d[\d.]*\))?( s| min| h)?|–|nan( ± nan)?"
    return re.fullmatch(number, cell) is not None


def escape_markdown(text: str) -> str:
    """Return text escaped for Markdown, even for the cell of a table."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    return " ".join(re.sub(r"([\\`*\[\]|])", r"\\\1", escaped).split())
