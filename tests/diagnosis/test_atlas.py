"""The atlas of known networks repeats the tables of the documentation, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

from solo_dimreg.diagnosis.atlas import known_networks

DOCS = Path(__file__).parents[2] / "docs"


def test_the_atlas_has_the_numbers_of_the_tables() -> None:
    atlas = known_networks()
    paper = {
        tuple(map(float, cell))
        for cell in re.findall(r"([\d.]+) / ([\d.]+) / ([\d.]+)", (DOCS / "methods.md").read_text())
    }
    quick = json.loads((DOCS / "data" / "quick.json").read_text())["summary"]
    ours = {(row["linear_acc1"], row["effective_rank"], row["lid"]) for row in quick}
    for row in atlas:
        known = paper if row["address"] else ours
        assert (row["linear_top1"], row["effective_rank"], row["lid"]) in known, row["name"]
        assert row["source"] and row["effective_rank"] < row["width"]
    assert len(atlas) == 19 + len(ours)
