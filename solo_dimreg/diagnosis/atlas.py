"""The networks whose numbers are known, among which a page shows the diagnosed ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from solo_dimreg import plots
from solo_dimreg.diagnosis.diagnose import Diagnosis

# How the kinds of the file are called; what is diagnosed comes last.
KINDS = {"published": "published", "here": "trained here", "": "diagnosed"}


def known_networks() -> list[dict[str, Any]]:
    """Return the networks of ``atlas.json``: name, width, effective rank over attainable, LID, source ..."""
    return json.loads(Path(__file__).with_name("atlas.json").read_text())


def draw(diagnoses: Sequence[Diagnosis]) -> Figure:
    """Draw the effective ranks of the features among those of the known networks."""
    shares: dict[str, dict[str, tuple[float, float, float]]] = {kind: {} for kind in KINDS.values()}
    for each in known_networks():
        shares[KINDS[each["kind"]]][each["name"]] = (each["effective_rank_share"],) * 3
    for diagnosis in diagnoses:
        space = diagnosis.features
        value = space.effective_rank / space.attainable
        low, high = space.interval("effective_rank") or (space.effective_rank,) * 2
        shares[KINDS[""]][diagnosis.source.name] = value, low / space.attainable, high / space.attainable
    return plots.draw_atlas(shares)


def table() -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the known networks, highest effective rank first."""
    rows = [
        [
            each["name"],
            str(each["width"]),
            f"{each['effective_rank_share']:.3f}",
            ", ".join(f"{lid:.1f} (k = {k})" for k, lid in (each["lid"] or {}).items()) or "–",
            "–" if each["alpha"] is None else f"{each['alpha']:.2f}",
            each["source"],
        ]
        for each in sorted(known_networks(), key=lambda each: -each["effective_rank_share"])
    ]
    return ["network", "width", "effective rank / attainable", "LID", "alpha-ReQ", "source"], rows


def sources() -> dict[str, str]:
    """Return the address of each source."""
    return {each["source"]: each["address"] for each in known_networks() if each["address"]}
