"""Warnings: once for all processes, however they were started."""

from __future__ import annotations

import pytest

from solo_dimreg.errors import RANKS, warn

# What the launchers set in the first process of all, in the first of the second node, and in another.
TORCHRUN = ("LOCAL_RANK", "RANK", "GROUP_RANK")
CASES = [
    ({}, True),
    (dict(zip(TORCHRUN, ("0", "0", "0"), strict=True)), True),
    (dict(zip(TORCHRUN, ("0", "8", "1"), strict=True)), False),
    (dict(zip(TORCHRUN, ("1", "1", "0"), strict=True)), False),
    ({"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}, True),
    ({"SLURM_PROCID": "8", "SLURM_LOCALID": "0", "SLURM_NODEID": "1"}, False),
    # Lightning's launcher: its first process on a node has no LOCAL_RANK, and the user has set NODE_RANK.
    ({"NODE_RANK": "0"}, True),
    ({"NODE_RANK": "1"}, False),
    ({"NODE_RANK": "0", "LOCAL_RANK": "1"}, False),
    ({"OMPI_COMM_WORLD_RANK": "3"}, False),
    # torchrun on each node of an srun of one task a node.
    ({"SLURM_PROCID": "1", **dict(zip(TORCHRUN, ("0", "4", "1"), strict=True))}, False),
    ({"SLURM_PROCID": "0", **dict(zip(TORCHRUN, ("0", "0", "0"), strict=True))}, True),
]


@pytest.mark.parametrize(("environment", "speaks"), CASES)
def test_a_warning_is_printed_by_the_first_process_alone(
    environment: dict[str, str],
    speaks: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    warn("k is capped.")
    assert capsys.readouterr().err == ("warning: k is capped.\n" if speaks else "")
