"""Runs that are logged to wandb, without its server: what is in their folders, and what ends no training."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from support import small

from solo_dimreg.errors import warn
from solo_dimreg.training.pretraining import pretrain
from solo_dimreg.training.wandb_mode import own_wandb_run, settle_wandb

wandb = pytest.importorskip("wandb")
BLOCK, WHOLE_OR_LAST = 32_768, (1, 4)


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, and nothing known of an account or a server."""
    wandb.finish()
    wandb.teardown()  # what another test has set up
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.setenv(name, "")  # so that what the test sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    yield
    wandb.finish()
    wandb.teardown()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server that answers, though not as wandb's does."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as answering:
        thread = Thread(target=answering.serve_forever)
        thread.start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{answering.server_port}")
        yield
        answering.shutdown()
        thread.join()


def settings(few_digits: Path, **changes: Any) -> Any:
    return small(
        few_digits,
        "simclr",
        regularizers={"ldreg": {"weight": 0.01, "k": 8, "warmup_epochs": 0}},
        monitor={"every_n_epochs": 1},
        wandb={"enabled": True, "project": "test", "entity": None, "offline": False},
        checkpoint={"enabled": True, "dir": "trained", "frequency": 1},
        **changes,
    )


def history(folder: Path) -> list[dict[str, Any]]:
    """The rows that were logged, from wandb's own file of a run: LevelDB's log of protocol buffers."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("*.wandb")
    data, place, message, rows = file.read_bytes(), 7, b"", []
    while place + 7 <= len(data):
        if (left := BLOCK - place % BLOCK) < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        message += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in WHOLE_OR_LAST:
            record, message = Record.FromString(message), b""
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items})
    return rows


def offline_runs() -> list[Path]:
    return sorted(Path("wandb").glob("offline-run-*"))


def test_offline_holds_our_figures_and_a_resumed_run_has_the_same_id(few_digits: Path) -> None:
    changed = settings(few_digits)
    changed.wandb.offline = True
    folder = pretrain(changed)
    wandb.finish()
    (run,) = offline_runs()
    names = {name for row in history(run) for name in row}
    assert {"dimensionality/effective_rank", "train_ldreg_epoch", "dimensionality/spectrum"} <= {
        name.partition("_table")[0] if name.startswith("dimensionality/spectrum") else name for name in names
    }
    (checkpoint,) = folder.glob("*.ckpt")
    changed.max_epochs, changed.resume_from_checkpoint = 2, str(checkpoint)
    pretrain(changed)
    wandb.finish()
    assert {path.name.rpartition("-")[2] for path in offline_runs()} == {folder.name}


def test_disabled_writes_nothing_to_wandb(few_digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert pretrain(settings(few_digits)).is_dir()
    assert not offline_runs()


def test_the_server_of_wandbs_own_settings_is_asked(
    few_digits: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    """As `wandb login --host` leaves them."""
    file = tmp_path / ".config" / "wandb" / "settings"
    file.parent.mkdir(parents=True)
    file.write_text(f"[default]\nbase_url = http://127.0.0.1:9\napi_key = {'0' * 40}\n")
    changed = settings(few_digits)
    settle_wandb(changed)
    assert changed.wandb.offline
    assert "wandb: http://127.0.0.1:9 cannot be reached" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({}, "no API key"),
        ({"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}, "cannot be reached"),
        ({"WANDB_API_KEY": "short"}, "WANDB_API_KEY invalid"),
    ],
)
@pytest.mark.usefixtures("server")
def test_no_key_and_no_server_end_no_training(
    few_digits: Path,
    variables: dict[str, str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert list(pretrain(settings(few_digits)).glob("*.ckpt"))
    wandb.finish()
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "offline below wandb/" in line]
    assert line.startswith("warning: wandb: ") and says in line
    assert len(offline_runs()) == 1


@pytest.mark.usefixtures("server")
def test_a_later_run_of_the_process_looks_anew(
    few_digits: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    def said() -> str:
        with own_wandb_run(settings(few_digits)):
            os.environ["WANDB_MODE"] = "dryrun"  # Lightning's
        assert "WANDB_MODE" not in os.environ
        return capfd.readouterr().err

    assert "there is no API key" in said()
    monkeypatch.setenv("WANDB_API_KEY", "short")
    assert "WANDB_API_KEY invalid" in said() and "WANDB_API_KEY invalid" in said()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert "cannot be reached" in said()


@pytest.mark.slow
def test_two_runs_of_a_process_are_two(few_digits: Path) -> None:
    folders = [pretrain(settings(few_digits)).name for _ in range(2)]
    assert wandb.run is None and "WANDB_MODE" not in os.environ
    assert sorted(path.name.rpartition("-")[2] for path in offline_runs()) == sorted(folders)


def test_what_wandb_fails_at_in_the_end_loses_nothing(
    few_digits: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    def lost(*_: Any) -> None:
        raise ConnectionResetError("Connection lost")

    with monkeypatch.context() as inside:
        inside.setattr(wandb, "teardown", lost)
        with pytest.raises(KeyError), own_wandb_run(settings(few_digits)):
            raise KeyError("the training's")
    assert "wandb: the run cannot be ended (ConnectionResetError" in capfd.readouterr().err


def test_a_run_of_the_users_own_goes_on(few_digits: Path) -> None:
    theirs = wandb.init(mode="offline", project="theirs")
    pretrain(small(few_digits, "simclr"))
    theirs.log({"x": 1})
    with own_wandb_run(settings(few_digits)):
        pass
    theirs.log({"x": 2})
    assert wandb.run is theirs


@pytest.mark.parametrize("server", ["http://127.0.0.1:abc", "http://a b", "nonsense"])
def test_a_server_that_is_none_is_not_reached(
    few_digits: Path, server: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", server)
    settle_wandb(settings(few_digits))
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "offline below wandb/" in line]
    assert line.startswith("warning: wandb: ") and server in line


@pytest.mark.parametrize("variable", ["LOCAL_RANK", "SLURM_PROCID"])
def test_only_the_first_process_warns(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv(variable, "1")
    warn("twice")
    monkeypatch.setenv(variable, "0")
    warn("once")
    assert capsys.readouterr().err == "warning: once\n"
