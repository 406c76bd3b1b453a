"""The notebook of the documentation runs, and prints what is committed with it.

``python tests/test_notebook.py`` runs it and commits its outputs to the file anew.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import warnings
from pathlib import Path
from typing import Any

import matplotlib
import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebooks" / "diagnose.ipynb"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


def run(notebook: dict[str, Any]) -> list[tuple[str, bytes | None]]:
    """Return what each code cell prints, and its picture as a PNG, or None."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    namespace: dict[str, Any] = {}
    found: list[tuple[str, bytes | None]] = []
    for number, cell in enumerate(code_cells(notebook)):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive")
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), namespace)
        picture = io.BytesIO()
        if plt.get_fignums():
            plt.gcf().savefig(picture, format="png", dpi=100, bbox_inches="tight")
            plt.close("all")
        found.append((printed.getvalue(), picture.getvalue() or None))
    return found


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def committed(cell: dict[str, Any]) -> tuple[str, bytes | None]:
    """Return the printed text and the picture among the outputs of a cell."""
    texts = ["".join(each["text"]) for each in cell["outputs"] if each["output_type"] == "stream"]
    pictures = [each["data"]["image/png"] for each in cell["outputs"] if "data" in each]
    return "".join(texts), base64.b64decode(pictures[0]) if pictures else None


@pytest.fixture(scope="module")
def notebook() -> dict[str, Any]:
    return json.loads(NOTEBOOK.read_text())


@pytest.mark.slow
def test_it_prints_what_is_committed(notebook: dict[str, Any]) -> None:
    for cell, (printed, picture) in zip(code_cells(notebook), run(notebook), strict=True):
        text, drawn = committed(cell)
        assert NUMBER.sub("#", printed).split() == NUMBER.sub("#", text).split()
        # Decompositions and solvers differ in the last digits between versions and processors.
        now, then = (list(map(float, NUMBER.findall(each))) for each in (printed, text))
        assert now == pytest.approx(then, rel=0.02, abs=0.11)
        assert (picture is None) == (drawn is None)


def test_it_is_small_and_has_one_picture(notebook: dict[str, Any]) -> None:
    assert NOTEBOOK.stat().st_size < 200_000
    pictures = [drawn for _, drawn in map(committed, code_cells(notebook)) if drawn]
    assert len(pictures) == 1 and pictures[0].startswith(b"\x89PNG")
    assert [cell["execution_count"] for cell in code_cells(notebook)] == list(
        range(1, len(code_cells(notebook)) + 1)
    )


def test_its_links_lead_to_pages(notebook: dict[str, Any]) -> None:
    text = "".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert links and all((NOTEBOOK.parent / link).is_file() for link in links)


def write() -> None:
    """Run the notebook and write its outputs into the file."""
    content = json.loads(NOTEBOOK.read_text())
    for number, (cell, (printed, picture)) in enumerate(
        zip(code_cells(content), run(content), strict=True), 1
    ):
        cell["execution_count"], cell["outputs"] = number, []
        if printed:
            lines = printed.splitlines(keepends=True)
            cell["outputs"].append({"name": "stdout", "output_type": "stream", "text": lines})
        if picture:
            data = {"image/png": base64.b64encode(picture).decode() + "\n"}
            cell["outputs"].append({"output_type": "display_data", "data": data, "metadata": {}})
    NOTEBOOK.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    write()
