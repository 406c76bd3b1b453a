"""Names that come from outside, with script tags where they do reach a page."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import torch

from solo_dimreg import diagnose
from solo_dimreg.reports.comparison import write_report
from solo_dimreg.studies.claims.claim import Claim
from solo_dimreg.studies.claims.numbers import Number
from solo_dimreg.studies.claims.page import write_outcomes

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


class Elements(HTMLParser):
    """Read a page as a browser would."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data


def check(page: Path) -> None:
    content = page.read_text()
    elements = Elements(content)
    assert "alert(1)" in elements.text  # it did reach the page
    assert "default-src 'none'" in content
    for tag, attributes in elements.found:
        assert tag not in ("script", "iframe", "object", "base", "form")
        assert not [name for name in attributes if name.startswith("on")]
        assert tag != "img" or str(attributes["src"]).startswith("data:")
        assert tag != "source" or str(attributes["srcset"]).startswith("data:")
        assert not str(attributes.get("href", "")).startswith("javascript:")


def test_a_report_of_runs_with_hostile_names_settings_and_columns(tmp_path: Path) -> None:
    for number in (1, 2):
        folder = tmp_path / "runs" / f"run{number}"
        folder.mkdir(parents=True)
        settings = {"name": f"{HOSTILE}{number}", "seed": 1, HOSTILE: f"{HOSTILE}{number}"}
        (folder / "args.json").write_text(json.dumps(settings))
        header = '"' + HOSTILE.replace('"', '""') + '"'
        (folder / "dimensionality.csv").write_text(f"epoch,step,lid,{header}\n0,1,3,{number}\n1,2,4,5\n")
    damaged = tmp_path / "runs" / HOSTILE.replace("/", "")
    damaged.mkdir()
    (damaged / "args.json").write_text("{")
    check(write_report(tmp_path / "runs", tmp_path / "out"))


def test_a_diagnosis_of_hostile_names_and_classes(tmp_path: Path) -> None:
    features = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    result = diagnose(features, labels=torch.arange(60) % 2, name=HOSTILE)
    check(result.save(tmp_path))
    notebook = tmp_path / "notebook.html"
    notebook.write_text(result._repr_html_() + "default-src 'none'")  # a cell has no policy of its own
    check(notebook)


def test_claims_of_a_hostile_plugin(tmp_path: Path) -> None:
    number = Number(HOSTILE, lambda results: results[HOSTILE]["curves"]["lid"]["0"], rows=(HOSTILE,))
    claim = Claim(*([HOSTILE] * 5), (number,), unit=HOSTILE, note=HOSTILE)
    runs = [{"row": HOSTILE, "seed": 5 + i, "curves": {"lid": {"0": 1.0 + i, "1": 2.0}}} for i in range(3)]
    content = {"planned_seeds": [5, 6, 7], "planned_runs": 3, "runs": runs, "experiments": {}}
    about = {"why": HOSTILE, "headlines": [HOSTILE]}
    write_outcomes(tmp_path, content, [claim], [claim], about, HOSTILE)
    check(tmp_path / "claims.html")
    assert Elements((tmp_path / "claims.html").read_text()).text.count(HOSTILE) > 10
