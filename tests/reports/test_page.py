from __future__ import annotations

from html.parser import HTMLParser

import pytest

from solo_dimreg.reports import page

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


def test_everything_is_escaped() -> None:
    parts = [
        page.section(HOSTILE, HOSTILE, page.paragraph(HOSTILE)),
        page.figures([page.figure("<svg></svg>", HOSTILE)]),
        page.folded(HOSTILE, page.table([HOSTILE, HOSTILE], [[HOSTILE, HOSTILE]], HOSTILE)),
        page.banner("bad", HOSTILE, HOSTILE),
        page.paragraph(page.link(HOSTILE, HOSTILE), page.strong(HOSTILE)),
        HOSTILE,
    ]
    read = Read(page.page(HOSTILE, *parts))
    assert "script" not in {tag for tag, _ in read.tags}
    assert "".join(read.texts).count(HOSTILE) == 2 + 3 + 1 + 5 + 2 + 2 + 1
    assert [attrs["href"] for tag, attrs in read.tags if tag == "a"] == [HOSTILE]
    assert [attrs["aria-label"] for _, attrs in read.tags if "aria-label" in attrs] == [HOSTILE]


def test_the_policy_lets_nothing_be_loaded() -> None:
    read = Read(page.page("t"))
    (policy,) = [attrs["content"] for _, attrs in read.tags if attrs.get("http-equiv")]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in read.tags}
    assert "url(" not in page.STYLE and "@import" not in page.STYLE


@pytest.mark.parametrize("cell", ["1", "97.50", "-2.5 ± 0.25", "71.30 ± 1.20 min", "–", "nan"])
def test_numbers_are_aligned(cell: str) -> None:
    aligned = Read(page.table(["name", "value"], [["a", cell], ["b", "3.25"]], "t"))
    assert [attrs.get("class") for tag, attrs in aligned.tags if tag == "td"] == ["number", "number"]
    mixed = Read(page.table(["name", "value"], [["a", cell], ["b", "simclr 2"]], "t"))
    assert [attrs.get("class") for tag, attrs in mixed.tags if tag == "td"] == [None, None]
