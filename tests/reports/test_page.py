from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from solo_dimreg.diagnosis.templating import TEMPLATES, number_columns, render
from solo_dimreg.metrics.explanations import Explanation
from solo_dimreg.reports import comparison
from solo_dimreg.reports.comparison import Section

REPORT = comparison.TEMPLATES / "report.html.j2"

HOSTILE = "<script>alert('x')</script>\"&\u2028</table>"


class Read(HTMLParser):
    """Read a page as a browser does: its tags, which have to be closed in order, attributes and texts."""

    VOID = ("meta", "wbr", "br")

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def part(name: str, *arguments: object) -> str:
    """Return what a macro in parts.html.j2 makes of its arguments."""
    template = f"{{% import 'parts.html.j2' as parts %}}{{{{ parts.{name}(*arguments) }}}}"
    with TemporaryDirectory() as folder:
        path = Path(folder, "page.html.j2")
        path.write_text(template)
        return render(path, arguments=arguments)


@pytest.mark.parametrize(
    ("parts", "count"),
    [
        (part("banner", "bad", HOSTILE, HOSTILE), 2),
        (part("caption", Explanation(HOSTILE, HOSTILE, HOSTILE, HOSTILE)), 3),
        (part("table", [HOSTILE, HOSTILE], [[HOSTILE, HOSTILE]], HOSTILE), 4),
        (render(TEMPLATES / "base.html.j2", title=HOSTILE), 2),
        (render(REPORT, title=HOSTILE, sections=[Section(HOSTILE, HOSTILE, [HOSTILE], [[HOSTILE]])]), 6),
        (render(REPORT, title="", sections=[Section(HOSTILE, folded=True)]), 1),
    ],
)
def test_everything_is_escaped(parts: str, count: int) -> None:
    read = Read(parts)
    assert "script" not in {tag for tag, _ in read.tags}
    assert "".join(read.texts).count(HOSTILE) == count
    assert all(attrs["href"] == HOSTILE for tag, attrs in read.tags if tag == "a")
    assert all(attrs["aria-label"] == HOSTILE for _, attrs in read.tags if "aria-label" in attrs)


def test_the_policy_lets_nothing_be_loaded() -> None:
    page = render(TEMPLATES / "base.html.j2", title="t")
    read = Read(page)
    (policy,) = [attrs["content"] for _, attrs in read.tags if attrs.get("http-equiv")]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in read.tags}
    assert "font: 1rem" in page and "url(" not in page and "@import" not in page


@pytest.mark.parametrize("cell", ["1", "97.50", "-2.5 ± 0.25", "71.30 ± 1.20 min", "–", "nan"])
def test_numbers_are_aligned(cell: str) -> None:
    assert number_columns([["a", cell], ["b", "3.25"]]) == [False, True]
    assert number_columns([["a", cell], ["b", "simclr 2"]]) == [False, False]
    read = Read(part("table", ["name", "value"], [["a", cell]], "t"))
    assert [attrs.get("class") for tag, attrs in read.tags if tag == "td"] == ["number"]
