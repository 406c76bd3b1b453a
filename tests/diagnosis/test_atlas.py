"""The atlas of known networks repeats the tables of the documentation, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

from solo_dimreg.diagnosis.atlas import known_networks, lid_curves

DOCS = Path(__file__).parents[2] / "docs"


def test_the_atlas_has_the_numbers_of_the_tables() -> None:
    atlas = known_networks()
    paper = {
        tuple(map(float, cell))
        for cell in re.findall(r"([\d.]+) / ([\d.]+) / ([\d.]+)", (DOCS / "methods.md").read_text())
    }
    trained = json.loads((DOCS / "data" / "verdict.json").read_text())["trained"]
    ours = [
        {
            **{"name": row["row"], "effective_rank": row["effective_rank"], "lid": row["lid"]},
            **{"linear_top1": row["accuracy"], "slope": row["alpha_req"], "lid_by_k": row["lid_by_k"]},
        }
        for row in trained
    ]
    for row in atlas:
        assert row["source"] and row["effective_rank"] < row["width"]
        if row["address"]:
            assert (row["linear_top1"], row["effective_rank"], row["lid"]) in paper, row["name"]
        else:
            own = ours.pop(0)
            assert own == {name: row[name] for name in own}
    assert not ours and len(atlas) == 19 + len(trained)
    assert [[*curve] for curve in lid_curves()] == [[8, 16, 32, 64, 128, 256]] * len(trained)
