from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from solo_dimreg.cli import main
from solo_dimreg.datasets.digits import write_digits
from solo_dimreg.solo_learn import Host, register

# With models and images this small a second thread mostly waits, and so do those of another worker.
torch.set_num_threads(1)

# What these fixtures make is made once: the tests that use them run in one worker.
SHARED = ("all_results", "site", "study", "wheel", "without_block")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for name in SHARED:
            if name in getattr(item, "fixturenames", ()):
                # Of the methods, each by itself: they share nothing, and are many.
                part = item.callspec.params["name"] if name == "without_block" else ""
                item.add_marker(pytest.mark.xdist_group(f"{item.path.stem}-{name}-{part}"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Give the next test one thread again: where cores are shared, two can take sixty times as long."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def host() -> Host:
    return register()


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All the digits as image folders."""
    return write_digits(tmp_path_factory.mktemp("data") / "digits")


@pytest.fixture(scope="session")
def few_digits(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slice of the digits: 12 training and 4 validation images of every class."""
    out = tmp_path_factory.mktemp("data") / "few"
    for split, count in (("train", 12), ("val", 4)):
        for folder in sorted((digits / split).iterdir()):
            target = out / split / folder.name
            target.mkdir(parents=True)
            for image in sorted(folder.iterdir())[:count]:
                shutil.copy(image, target)
    return out


@pytest.fixture(scope="session")
def solo_learn_clone() -> Path:
    """The clone of the current solo-learn that SOLO_LEARN names."""
    return Path(os.environ["SOLO_LEARN"])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture):
    """Runs the command line in this process, in an empty folder."""

    def run(*arguments: str) -> subprocess.CompletedProcess:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["solo-dimreg", *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, exit_.value.code, captured.out, captured.err)

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not os.environ.get("SOLO_LEARN"):
        terminalreporter.write_line(
            "Not run: the tests of the current solo-learn's own scripts. "
            "SOLO_LEARN=<clone of github.com/vturrisi/solo-learn> ./reproduce.sh test --all runs them."
        )


@pytest.fixture
def cholesky(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts back ``torch.cholesky``, gone from today's torch, which W-MSE of solo-learn 1.0.2 calls."""
    monkeypatch.setattr(torch, "cholesky", torch.linalg.cholesky)
