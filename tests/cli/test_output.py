"""Tables and help are readable wherever they are shown."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from rich.cells import cell_len
from test_readme import CHEAP, commands, refusal

from solo_dimreg.cli import cli
from solo_dimreg.cli.output import column_widths, in_encoding, print_table, show_similar_characters
from solo_dimreg.solo_learn.record import RECORD

HEADER = ["name", "value", "description"]
NAME, ADDRESS = "a_name_of_thirty_letters_or_so", "https://example.org/an/address"
LONG = f"A description of more than eighty characters, which is wrapped between its words, never in {ADDRESS}"
ROWS = [[NAME, "-1234567.25", LONG], ["short", 0.5, "[default: x]"]]


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def test_a_table_fits_into_eighty_columns_and_nothing_is_cut(capsys: pytest.CaptureFixture) -> None:
    print_table(HEADER, ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and not any("\x1b" in line for line in lines)
    starts = [lines[0].index(name) for name in HEADER]
    assert lines[1].startswith(f"{NAME}  -1234567.25  ") and ADDRESS in "\n".join(lines)
    assert " ".join(line[starts[2] :].strip() for line in lines[1:-1]) == LONG
    assert lines[-1].split(maxsplit=2) == ["short", "0.5", "[default: x]"]
    assert all(line[starts[2] - 1] == " " for line in lines)


def test_a_table_of_long_words_is_wider_than_the_terminal(capsys: pytest.CaptureFixture) -> None:
    words = ["w" * 60, "x" * 50]
    print_table(["one", "two"], [words])
    assert capsys.readouterr().out.splitlines()[1].split() == words


@pytest.mark.parametrize("room", [40, 60, 80, 200])
def test_columns_are_narrowed_to_the_room_and_not_below_a_word(room: int) -> None:
    cells = [HEADER, *[[str(cell) for cell in row] for row in ROWS]]
    widths = column_widths(cells, room)
    for width, column in zip(widths, zip(*cells, strict=True), strict=True):
        assert width >= max(cell_len(word) for cell in column for word in cell.split())
        assert width <= max(map(cell_len, column))
    assert sum(widths) + 4 <= room or widths == column_widths(cells, 0)


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("no_color", [None, "1"])
def test_colours_are_for_terminals_that_want_them(
    no_color: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    if no_color:
        monkeypatch.setenv("NO_COLOR", no_color)
    print_table(["claim", "verdict"], [["a", "holds here"], ["b", "contradicted"]])
    shown = sys.stdout.getvalue()  # type: ignore[attr-defined]
    assert ("\x1b[" in shown) is (no_color is None)
    assert re.sub(r"\x1b\[\d*m", "", shown).split() == [
        "claim",
        "verdict",
        "a",
        "holds",
        "here",
        "b",
        "contradicted",
    ]


def test_a_terminal_without_unicode_shows_similar_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    show_similar_characters()
    print_table(["a", "b"], [["1.5 ± 0.5", "–"], ["Häggström", "α…"]])
    print("32 × 32")
    assert written.getvalue().decode("ascii").splitlines() == [
        *("a           b", "1.5 +- 0.5  -", "Haggstrom   ?..."),
        "32 x 32",
    ]
    assert in_encoding("±", "latin-1") == "±"


@pytest.mark.parametrize("saved", [True, False])
def test_pretrain_begins_and_ends_with_a_table(
    saved: bool, here: Any, tmp_path: Path, few_digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path("trained_models", "simclr", "offline-ab12cd34")

    def pretend(settings: Any, on_start: Callable[[], None]) -> Path | None:
        on_start()
        if saved:
            folder.mkdir(parents=True)
            (folder / "metrics.csv").touch()
            record = {"started": "2026-01-02 03:04 UTC", "finished": "2026-01-02 03:06 UTC"}
            (folder / RECORD).write_text(json.dumps(record))
        return folder if saved else None

    monkeypatch.setattr("solo_dimreg.training.pretraining.pretrain", pretend)
    monkeypatch.setattr("solo_dimreg.solo_learn.next_steps.next_steps", lambda *_: ["solo-dimreg knn x"])
    paths = [f"data.{split}_path={few_digits / split}" for split in ("train", "val")]
    settings = ["optimizer.batch_size=16", "max_epochs=3", *paths]
    done = here("pretrain", "-cp", "digits", "-cn", "simclr", *settings)
    assert done.returncode == 0, done.stderr
    lines = [re.split(" {2,}", line) for line in done.stdout.splitlines()]
    cells = dict(line for line in lines if len(line) == 2)
    assert lines[0] == ["setting", "value"]
    assert {"method": "simclr", "epochs": "3", "batch size of a device": "16"}.items() <= cells.items()
    if not saved:
        assert done.stdout.endswith("nothing was saved.\n")
        return
    assert cells["checkpoint"] == str(folder) and cells["finished"] == "2026-01-02 03:06 UTC"
    assert sorted(cells["files"].split(", ")) == sorted([RECORD, "metrics.csv"])
    assert done.stdout.endswith("Evaluate the checkpoint with:\n  solo-dimreg knn x\n")


def every_command(command: click.Command = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Return the path of each command and sub-command."""
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from every_command(found, (*path, name))


def command_of(path: tuple[str, ...]) -> click.Command:
    command: click.Command = cli
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found
    return command


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
def test_help_begins_with_a_sentence_and_ends_with_an_example_that_works(
    path: tuple[str, ...], here: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = here(*path, "--help").stdout
    _, first, *_ = shown.split("\n\n")
    sentence = " ".join(first.split())
    assert re.fullmatch(r"[A-Z][a-z]+ [^;]*\.", sentence) and not re.search(r"[.!?] ", sentence), sentence
    heading, _, example = shown.rpartition("\n\n")[2].partition("\n")
    assert re.fullmatch(r"  (Examples?|A first run.*):", heading), heading
    (tmp_path / "solo-learn").mkdir()
    (tmp_path / "solo-learn" / "main_knn.py").touch()  # a script that has to be there
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS")
    words = list(commands(example))
    assert words and not list(filter(None, map(refusal, words)))
    assert all(each[0] == "solo-dimreg" for each in words)
    assert any(tuple(each[1:][: len(path)]) == path for each in words)
    for each in words:
        if any(each[1:][: len(cheap)] == cheap for cheap in CHEAP):
            assert here(*each[1:]).returncode == 0


@pytest.mark.parametrize(
    "arguments", [["methods"], ["methods", "ldreg_byol"], ["claims", "--list"]], ids=" ".join
)
def test_tables_of_the_commands_fit_into_eighty_columns(here: Any, arguments: list[str]) -> None:
    tables = [line for line in here(*arguments).stdout.splitlines() if re.search(r"\S {2,}\S", line)]
    assert len(tables) > 5 and max(map(len, tables)) <= 80
