"""Intervals, the LID over neighbours and differences between inputs, as a user meets them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from solo_dimreg import diagnose
from solo_dimreg.diagnosis.atlas import known_networks
from solo_dimreg.diagnosis.diagnose import DECIDING
from solo_dimreg.metrics.neighbourhoods import neighbours_within


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


BEFORE = normal(400, 24) * torch.arange(1, 25) ** -0.3
AFTER = BEFORE * torch.arange(1, 25) ** -0.5 + 0.02 * normal(400, 24, seed=1)


def test_every_number_has_an_interval() -> None:
    labels = torch.arange(400) % 4
    result = diagnose(BEFORE, embeddings=AFTER[:, :8], labels=labels)
    found = result.as_dict()
    without = {"samples", "dimensions", "duplicates", "lid_512"}
    for space in (found["features"], found["embeddings"]):
        numbers = {name for name, value in space.items() if isinstance(value, int | float)} - {
            "attainable_rank"
        }
        assert numbers - without == space["intervals"].keys() - {"lid_by_k"}
        for name in numbers - without:
            low, high = space["intervals"][name]
            assert low <= space[name] <= high
        assert space["intervals"]["lid_by_k"].keys() == space["lid_by_k"].keys()
    assert found["intervals"].keys() == {"mutual_information", "mutual_information_1"}
    for line in found["classes"]:
        for name, (low, high) in line["intervals"].items():
            assert low < line[name] < high
    assert result.interval("effective_rank") == found["features"]["intervals"]["effective_rank"]
    assert result.interval("samples") is None and result.interval("lid_by_k", 512) is None


def test_few_or_constant_rows_have_numbers_and_intervals() -> None:
    for rows in (
        normal(3, 5),
        torch.ones(40, 4),
        torch.zeros(40, 4),
        1e60 * normal(50, 6).double(),
        normal(60, 1),
    ):
        for name, ends in diagnose(rows).as_dict()["features"]["intervals"].items():
            assert name == "lid_by_k" or ends is None or np.isfinite(ends).all()


def test_the_lid_is_a_curve_over_the_neighbours() -> None:
    """As scikit-dimension has it, whose estimate x is in the convention of LDReg (x + 1) (k - 1) / k - 1."""
    moments = pytest.importorskip("skdim.id").MOM
    plane = torch.rand(1200, 2, generator=torch.Generator().manual_seed(0))
    rows = plane @ normal(2, 16) + 0.04 * normal(1200, 16, seed=1)
    curve = neighbours_within(rows).lid_by_k
    assert list(curve) == [8, 16, 32, 64, 128, 256]  # at most a fourth of the rows
    for k, lid in curve.items():
        theirs = np.array(moments().fit(rows.double().numpy(), n_neighbors=k).dimension_pw_)
        assert lid == pytest.approx(np.exp(np.log((theirs + 1) * (k - 1) / k - 1).mean()), rel=1e-4)
    # Near a point is the noise in 16 dimensions, and farther away the plane.
    assert curve[8] > 3.5 and curve[256] == pytest.approx(2, rel=0.15)


def test_pairs_of_rows_narrow_the_difference() -> None:
    before, after = diagnose(BEFORE, name="before"), diagnose(AFTER, name="after")
    paired, independent = after.compared_with(before), diagnose(AFTER[:399]).compared_with(before)
    assert paired.paired and not independent.paired
    change, other = (each.spaces["features"]["effective_rank"] for each in (paired, independent))
    assert change.value == pytest.approx(after.effective_rank - before.effective_rank)
    widths = [each.interval[1] - each.interval[0] for each in (change, other)]
    assert widths[0] < 0.8 * widths[1]
    # Without pairs the variances add up.
    ends = [result.interval("effective_rank") for result in (before, diagnose(AFTER[:399]))]
    assert widths[1] == pytest.approx(np.hypot(*(high - low for low, high in ends)), rel=1e-3)
    low, high = change.interval
    assert low < change.value < high < 0
    words = f"effective rank fell by {-change.value:.1f} ({-high:.1f} to {-low:.1f})"
    assert str(change) == words and words in str(paired)
    assert str(paired).startswith("after against before, row by row: ")
    assert "no change in effective rank; " in str(before.compared_with(before))


def test_terminal_page_and_file_say_it(here: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "before.npy", BEFORE.numpy())
    np.save(tmp_path / "after.npy", AFTER.numpy())
    run = here("diagnose", "before.npy", "after.npy", "--out", "out")
    assert run.returncode == 0, run.stderr
    sentence = str(diagnose(AFTER, name="after.npy").compared_with(diagnose(BEFORE, name="before.npy")))
    page = (tmp_path / "out" / "diagnosis.html").read_text()
    assert sentence in run.stdout and sentence in page
    assert re.search(r"95 % intervals over images: .*effective rank 22\.", run.stdout)
    written = json.loads((tmp_path / "out" / "diagnosis.json").read_text())
    (difference,) = written["differences"]
    assert (difference["input"], difference["from"], difference["paired"]) == (
        "after.npy",
        "before.npy",
        True,
    )
    rank = difference["features"]["effective_rank"]
    assert rank["interval"][0] < rank["difference"] < rank["interval"][1] < 0
    assert "± is half of the 95 % interval" in page and "Known networks" in page
    for network in known_networks():
        assert network["name"] in page.replace("<wbr>", "") and network["address"] in page
    for name in ("lid_by_k", "atlas"):
        assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert set(DECIDING) <= written["inputs"][0]["features"]["intervals"].keys()
