"""The networks whose numbers are known, among which a page shows the diagnosed ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from solo_dimreg import plots
from solo_dimreg.diagnosis.diagnose import Diagnosis

# What is published, what is trained here, and what is diagnosed, in the order of the picture.
KINDS = ("published", "trained here", "diagnosed")


def known_networks() -> list[dict[str, Any]]:
    """Return the networks of ``atlas.json``; those with an address are published, the others trained here.

    LIDs of a paper are as it reports them, and ours are by moments with 32 neighbours. Ours also have the LID
    for each number of neighbours up to a fourth of their 1,920 images, and the spectrum's slope (alpha-ReQ).
    """
    return json.loads(Path(__file__).with_name("atlas.json").read_text())


def draw(diagnoses: Sequence[Diagnosis]) -> Figure:
    """Draw the effective ranks of the features among those of the known networks."""
    shares: dict[str, dict[str, tuple[float, float, float]]] = {kind: {} for kind in KINDS}
    for each in known_networks():
        kind = KINDS[0] if each["address"] else KINDS[1]
        shares[kind][f"{each['name']}, {each['backbone']}"] = (each["effective_rank"] / each["width"],) * 3
    for diagnosis in diagnoses:
        space = diagnosis.features
        value = space.effective_rank / space.attainable
        low, high = space.interval("effective_rank") or (space.effective_rank,) * 2
        shares[KINDS[2]][diagnosis.source.name] = value, low / space.attainable, high / space.attainable
    return plots.draw_atlas(shares)


def lid_curves() -> list[dict[int, float]]:
    """Return the LID over the number of neighbours of each network that has it."""
    curves = [each["lid_by_k"] for each in known_networks() if "lid_by_k" in each]
    return [{int(k): lid for k, lid in curve.items()} for curve in curves]


def table() -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the known networks, highest share of the effective rank first."""
    networks = sorted(known_networks(), key=lambda each: -each["effective_rank"] / each["width"])
    rows = [
        [
            each["name"],
            f"{each['backbone']}, {each['images']}",
            f"{each['effective_rank']:.0f} of {each['width']}",
            f"{each['lid']:.1f}",
            f"{each['slope']:.2f}" if "slope" in each else "–",
            f"{each['linear_top1']:.1f}",
            each["source"],
        ]
        for each in networks
    ]
    header = ["network", "backbone, images", "effective rank", "LID", "alpha-ReQ", "linear top-1 %", "source"]
    return header, rows


def sources() -> dict[str, str]:
    """Return the address of each source."""
    return {each["source"]: each["address"] for each in known_networks() if each["address"]}
