"""Build the HTML pages of the reports: each is one file that opens from disk, without network or script.

The functions return :class:`Html`, which is not escaped again; any other text is escaped.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

# A sign repeats the colour, for readers who cannot see it.
SIGNS = {"good": "✓", "warning": "!", "bad": "✗"}

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --paper: #ffffff; --card: #f6f8fa;
  --line: #d1d9e0; --link: #0b57d0; --good: #00664a; --warning: #8a5a00; --bad: #a83c00; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --soft: #a3adb8; --paper: #14171b; --card: #1d2127; --line: #3a414a;
    --link: #8ab4f8; --good: #3fd0a4; --warning: #f0b429; --bad: #ff9a66; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: .75rem; max-width: 84rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; }
h2, summary { font-size: 1.2rem; font-weight: 700; margin: 2rem 0 .5rem; }
summary { cursor: pointer; }
p { max-width: 48rem; margin: .5rem 0; }
a { color: var(--link); }
.banner { border: 1px solid; border-left-width: .5rem; border-radius: .4rem; padding: .6rem .9rem;
  max-width: 48rem; }
.banner.good { border-color: var(--good); } .banner.good b { color: var(--good); }
.banner.warning { border-color: var(--warning); } .banner.warning b { color: var(--warning); }
.banner.bad { border-color: var(--bad); } .banner.bad b { color: var(--bad); }
.scroll { overflow-x: auto; width: fit-content; max-width: 100%; border: 1px solid var(--line);
  border-radius: .4rem; }
.scroll:focus-visible { outline: 2px solid var(--link); }
table { border-collapse: separate; border-spacing: 0; font-size: .9rem; font-variant-numeric: tabular-nums;
  overflow-wrap: break-word; color: inherit; }
th, td { padding: .35rem .7rem; text-align: left; border-top: 1px solid var(--line); }
th, .number { white-space: nowrap; }
td { max-width: 20rem; background: var(--paper); }
thead th { border-top: 0; background: var(--card); }
th:first-child { position: sticky; left: 0; background: var(--card); }
tbody th { font-weight: 600; }
th.long { white-space: normal; min-width: 11rem; max-width: 20rem; overflow-wrap: anywhere; }
.number { text-align: right; }
.figures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr));
  align-items: start; margin: .8rem 0; }
figure { margin: 0; padding: .45rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .4rem; }
figure svg, figure img { display: block; width: 100%; height: auto; }
figure svg text { font-family: system-ui, sans-serif !important; }
figcaption { margin-top: .4rem; font-size: .9rem; color: var(--soft); }
"""

# The class of a fragment in another page.
SCOPE = "solo-dimreg"


class Html(str):
    """Text that is HTML already."""


def escape(content: str) -> Html:
    """Return text escaped as HTML, and HTML unchanged."""
    return content if isinstance(content, Html) else Html(html.escape(content))


def join(parts: Iterable[str]) -> Html:
    """Return the parts, joined."""
    return Html("".join(escape(part) for part in parts))


def paragraph(*parts: str) -> Html:
    """Return a paragraph."""
    return Html(f"<p>{join(parts)}</p>\n")


def strong(text: str) -> Html:
    """Return text in bold."""
    return Html(f"<b>{escape(text)}</b>")


def link(text: str, address: str) -> Html:
    """Return a link, which loads nothing until it is clicked."""
    return Html(f'<a href="{html.escape(address)}">{escape(text)}</a>')


def banner(kind: str, verdict: str, explanation: str) -> Html:
    """Return a verdict in a box, with its explanation.

    Args:
        kind: ``good``, ``warning`` or ``bad``.
        verdict: A few words.
        explanation: A sentence.
    """
    return Html(
        f'<div class="banner {kind}" role="note"><b>{SIGNS[kind]} {escape(verdict)}</b> '
        f"{escape(explanation)}</div>\n"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]], label: str) -> Html:
    """Return a table whose first column names the rows; a narrow screen scrolls it in its own box.

    Columns of numbers are aligned to the right.

    Args:
        header: The names of the columns.
        rows: The cells, as text.
        label: The title of the table, for screen readers.
    """
    numbers = [all(_is_number(row[i]) for row in rows) for i in range(len(header))]
    kinds = [' class="number"' if i and number else "" for i, number in enumerate(numbers)]
    head = "".join(f'<th scope="col"{kinds[i]}>{escape(cell)}</th>' for i, cell in enumerate(header))
    lines = []
    for row in rows:
        cells = "".join(f"<td{kinds[i]}>{escape(cell)}</td>" for i, cell in enumerate(row) if i)
        lines.append(f"<tr>{_row_name(row[0])}{cells}</tr>\n")
    return Html(
        f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(label)}"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{''.join(lines)}</tbody></table></div>\n"
    )


def _row_name(name: str) -> str:
    """Return a heading that stays in sight when the table scrolls; a long one may break, first after dots."""
    if len(name) <= 16:
        return f'<th scope="row">{escape(name)}</th>'
    return f'<th scope="row" class="long">{escape(name).replace(".", ".<wbr>")}</th>'


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"-?\d[\d.]*( ± \d[\d.]*)?( s| min| h)?|–|nan( ± nan)?", cell) is not None


def figure(drawing: str, caption: str) -> Html:
    """Return a card with a picture and its caption.

    Args:
        drawing: An SVG element, see :func:`solo_dimreg.plots.svg`.
        caption: Text, or HTML for links.
    """
    return Html(f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>\n")


def figures(cards: Iterable[str]) -> Html:
    """Return cards of :func:`figure`, side by side as far as the screen has room."""
    return Html(f'<div class="figures">\n{join(cards)}</div>\n')


def section(heading: str, *parts: str) -> Html:
    """Return a section of the page under its heading."""
    return Html(f"<section>\n<h2>{escape(heading)}</h2>\n{join(parts)}</section>\n")


def folded(heading: str, *parts: str) -> Html:
    """Return a section of the page that opens when its heading is clicked."""
    return Html(f"<details>\n<summary>{escape(heading)}</summary>\n{join(parts)}</details>\n")


def page(title: str, *parts: str) -> str:
    """Return the whole page.

    Args:
        title: The title and first heading.
        parts: The results of the other functions; other text is escaped.
    """
    # The policy lets a browser load nothing but the pictures in the page.
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{html.escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{html.escape(title)}</h1>
{join(parts)}</body>
</html>
"""


def fragment(*parts: str) -> str:
    """Return the parts for another page, such as a notebook; the style applies only to them.

    Args:
        parts: The results of the other functions; other text is escaped.
    """
    own = re.sub(r"^( *)(:root|body) {", r"\1& {", STYLE, flags=re.MULTILINE)
    return f'<div class="{SCOPE}">\n<style>.{SCOPE} {{{own}}}</style>\n{join(parts)}</div>\n'
