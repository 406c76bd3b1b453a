"""The comparison with other packages: what differs is not timed, and what is missing is named."""

import dataclasses
import importlib
import json

import pytest
import torch

from solo_dimreg.functional import koleo_loss
from solo_dimreg.studies import peers
from solo_dimreg.studies.peers import Peer, compare


def koleo(x):
    unit = torch.nn.functional.normalize(x)
    return -(torch.cdist(unit, unit) + 9 * torch.eye(len(x))).min(dim=1).values.log().mean()


def missing():
    return importlib.import_module("nowhere_installed")


SAME = Peer("KoLeo", "torch", (40, 8), koleo_loss, lambda: koleo)
OTHER_VALUE = Peer("KoLeo", "torch", (40, 8), koleo_loss, lambda: lambda x: 2 * koleo(x), why="twice as much")
OTHER_GRADIENT = Peer(
    "KoLeo", "torch", (40, 8), koleo_loss, lambda: lambda x: koleo(x) + (x - x.detach()).sum()
)
MISSING = Peer("KoLeo", "nowhere", (40, 8), koleo_loss, missing)


def test_what_is_the_same_is_timed():
    found = compare(SAME, repeats=1)
    assert (
        found["difference"] < 1e-5 and found["ratio"] > 0 and found["note"] == "" and found["shape"] == "40x8"
    )


def test_what_differs_is_not_timed():
    found = compare(OTHER_VALUE, repeats=1)
    assert found["ratio"] is None and found["note"] == "twice as much"
    assert found["difference"] == pytest.approx(1, abs=1e-3)
    found = compare(OTHER_GRADIENT, repeats=1)
    assert found["ratio"] is None and found["note"] == "another value" and found["difference"] > 0.1


def test_what_is_missing_is_named():
    assert compare(MISSING, repeats=1)["note"] == "nowhere is not installed"
    for package, how in peers.INSTALL.items():
        found = compare(dataclasses.replace(MISSING, package=package), repeats=1)
        assert found["difference"] is None and found["note"] == f"{package} is not installed: {how}"


@pytest.mark.parametrize(
    "older", [lambda: torch.nn.NoSuchLoss, lambda: importlib.import_module("torch.no_loss")]
)
def test_what_an_older_package_lacks_is_named(older):
    found = compare(dataclasses.replace(MISSING, package="torch", theirs=older), repeats=1)
    assert found["ratio"] is None and found["note"].startswith("the installed torch lacks it (")


def test_the_command_prints_json_and_writes_the_page(here, monkeypatch, tmp_path):
    monkeypatch.setattr(peers, "peers", lambda: [SAME, OTHER_VALUE, MISSING])
    done = here("bench", "--peers", "--json", "--repeats", "1")
    assert done.returncode == 0, done.stderr
    assert [each["ratio"] is None for each in json.loads(done.stdout)["peers"]] == [False, True, True]
    (tmp_path / "peers.json").write_text(done.stdout)
    page = tmp_path / "page.md"
    page.write_text("# Page\n<!-- peers -->\n<!-- /peers -->\n")
    done = here("bench", "--peers", "--page", str(page), "--from", str(tmp_path / "peers.json"))
    assert done.returncode == 0, done.stderr
    assert "| KoLeo | torch | 40x8 | 1e+00 | not timed: twice as much |" in page.read_text()
    assert "twice as much" in here("bench", "--peers", "--repeats", "1").stdout


@pytest.mark.parametrize("peer", peers.peers(), ids=lambda peer: f"{peer.name} of {peer.package}")
def test_other_packages_have_the_same_value(peer):
    try:
        peer.theirs()
    except (ImportError, AttributeError):
        pytest.skip(f"{peer.package} is not installed")
    found = compare(peer, repeats=1)
    assert (found["ratio"] is None) == bool(peer.why), found
