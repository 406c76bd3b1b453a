"""Files and folders under interruptions, and with two processes at once."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import until

from solo_dimreg.errors import ConfigError
from solo_dimreg.files import checkpoint_epoch, checkpoint_place, locked, read_numbers, write_json


def command(*arguments: str, cwd: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "solo_dimreg", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_two_at_once_write_one_whole_data_set(tmp_path: Path) -> None:
    both = [command("data", "digits", cwd=tmp_path) for _ in range(2)]
    outputs = [each.communicate(timeout=240) for each in both]
    assert [each.returncode for each in both] == [0, 0], outputs
    assert len(list(tmp_path.glob("datasets/digits/*/*/*.png"))) == 1797
    assert [path.name for path in (tmp_path / "datasets").iterdir()] == ["digits"]


@pytest.mark.slow
def test_a_termination_leaves_nothing_behind(tmp_path: Path) -> None:
    run = command("data", "sprites", "--images", "60000", "--out", "sprites", cwd=tmp_path)
    until(lambda: list(tmp_path.glob(".sprites-*/*/*")), run)
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGTERM and not list(tmp_path.iterdir())


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", refuse)  # no such file system can be mounted here
    with (
        pytest.raises(ConfigError, match=rf"--out: '.*' is on a file system .* \({os.strerror(code)}\)"),
        locked("--out", tmp_path / "results"),
    ):
        pass


def test_a_folder_of_results_is_for_one_process(tmp_path: Path) -> None:
    code = (
        "import time\nfrom pathlib import Path\nfrom solo_dimreg.files import locked\n"
        "with locked('--out', Path('results')):\n    print('in', flush=True)\n    time.sleep(60)\n"
    )
    # It sleeps with the lock until it is killed.
    other = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "in\n"
    try:
        with (
            pytest.raises(ConfigError, match="--out: another run is writing into"),
            locked("--out", tmp_path / "results"),
        ):
            pass
    finally:
        other.kill()
        other.wait()
    with locked("--out", tmp_path / "results"):
        pass


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("simclr-digits-offline-5hm960t5-ep=11.ckpt", (11, -1)),
        ("simclr-ep=9-offline-ep=1.ckpt.good", (1, -1)),
        ("epoch=3-step=500.ckpt", (3, 500)),
        ("step=500-epoch=3.ckpt", (3, 500)),
        ("step=500.ckpt", (-1, 500)),
        ("epoch=3-global_step=500-v1.ckpt", (3, 500)),
        ("rep=7-keep=5-warmupstep=4.ckpt", (-1, -1)),
        ("last.ckpt", (-1, -1)),
    ],
)
def test_epoch_and_step_in_the_names_of_checkpoints(name: str, place: tuple[int, int]) -> None:
    assert checkpoint_place(Path("ep=99", name)) == place
    assert checkpoint_epoch(Path("ep=99", name)) == place[0]


def test_json_has_no_nan(tmp_path: Path) -> None:
    value = {"a": float("nan"), "b": [1.5, float("inf")], "c": {"d": (float("-inf"), None, True, "NaN")}}
    write_json(tmp_path / "x.json", value)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    found = json.loads((tmp_path / "x.json").read_text(), parse_constant=refuse)
    assert found == {"a": None, "b": [1.5, None], "c": {"d": [None, None, True, "NaN"]}}
    numbers = read_numbers(tmp_path / "x.json")
    assert math.isnan(numbers["a"]) and numbers["b"][0] == 1.5 and math.isnan(numbers["b"][1])
