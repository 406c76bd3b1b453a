"""A metric is one record: what the hooks register, the glossary and the list of classes agree with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from solo_dimreg import metrics
from solo_dimreg.metrics.explanations import explain
from solo_dimreg.metrics.registry import METRICS, ROWS
from solo_dimreg.monitor.tracker import DimensionalityTracker
from solo_dimreg.plugins import monitored_metrics, registered

DOCS = Path(__file__).parents[2] / "docs"
MONITORED = [record for record in METRICS.values() if record.in_monitor]


def rows_of(page: str) -> dict[str, str]:
    """Return the rows of a page's tables by the names in their first cell."""
    lines = re.findall(r"^\| (`.+?) \|(.*)\|$", (DOCS / page).read_text(), re.MULTILINE)
    return {name: rest for names, rest in lines for name in re.findall(r"`(\w+)`", names)}


def test_the_glossary_has_every_metric_and_its_paper() -> None:
    rows = rows_of("metrics.md")
    assert rows.keys() - {"mutual_information_1", "spectrum", "lid_by_k", "intervals"} == METRICS.keys()
    arxiv = {
        name: record.source.address.rpartition("/")[2]
        for name, record in METRICS.items()
        if record.source.address
    }
    known = {number: name for name, number in reversed(arxiv.items()) if number in rows[name]}
    assert known.keys() == set(arxiv.values())  # the page links a paper once


def test_the_api_reference_has_every_class() -> None:
    rows = rows_of("api/metrics.md")
    assert [*rows] == [*metrics.__all__]
    for record in METRICS.values():
        if record.torchmetrics:
            assert rows[record.torchmetrics].split("|")[0].strip() == f"`{record.name}`"
            covers = "all" if record.of_moments else "at most `max_samples`"
            assert rows[record.torchmetrics].endswith(f"| {covers} ")


@pytest.mark.parametrize("record", MONITORED, ids=lambda record: record.name)
def test_a_metric_of_the_monitor_is_explained(record) -> None:
    assert record.label and record.explanation and record.function is not None
    assert explain(record.name).label.startswith(record.label)


def test_the_hooks_register_the_functions_of_the_records() -> None:
    found = {
        name: each.value for name, each in registered("metrics").items() if each.distribution == "solo-dimreg"
    }
    assert found == {record.name: record.function for record in MONITORED if record.inputs == ROWS}
    assert {record.name for record in MONITORED} <= monitored_metrics().keys()


def test_a_new_record_is_all_that_a_front_end_needs() -> None:
    """The tracker has each record that it can compute, by its name."""
    import torch

    tracker = DimensionalityTracker()
    tracker.update(torch.randn(50, 6), torch.randn(50, 3))
    expected = {name for name, each in METRICS.items() if each.in_diagnosis and each.inputs == ROWS}
    found = tracker.compute().keys() - {"mutual_information", "mutual_information_1"}
    assert found == {prefix + name for prefix in ("", "z_") for name in expected}
