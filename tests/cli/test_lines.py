from __future__ import annotations

import io

import pytest
from tqdm import tqdm

from solo_dimreg.errors import warn, write_last_line


@pytest.fixture(autouse=True)
def no_other_bars() -> None:
    """Forget bars that tests before have left open: a new one would stand below them."""
    tqdm._instances.clear()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_an_error_begins_on_its_own_line_below_the_bars(capsys: pytest.CaptureFixture) -> None:
    shown = io.StringIO()
    outer, inner = (tqdm(total=9, file=shown, position=n, leave=False) for n in range(2))
    outer.update(3)
    write_last_line("error: x")
    assert shown.getvalue().endswith("\n") and "3/9" in shown.getvalue().rsplit("\r", 1)[1]
    assert capsys.readouterr().err == "error: x\n"
    before = shown.getvalue()
    for bar in (inner, outer):
        bar.update()
        bar.close()
    assert shown.getvalue() == before  # nothing follows the error, as the bar that is collected did


@pytest.mark.parametrize(("kind", "end"), [(io.StringIO, "\n"), (Terminal, "\r")])
def test_a_warning_begins_on_its_own_line_and_the_bar_goes_on(
    kind: type[io.StringIO], end: str, capsys: pytest.CaptureFixture
) -> None:
    shown = kind()
    bar = tqdm(total=9, file=shown, mininterval=0)
    warn("x")
    assert shown.getvalue().endswith(end)
    assert capsys.readouterr().err == "warning: x\n"
    bar.update(4)
    assert "4/9" in shown.getvalue()
    bar.close()


def test_a_bar_whose_stream_is_closed_is_left_alone(capsys: pytest.CaptureFixture) -> None:
    shown = io.StringIO()
    bar = tqdm(total=9, file=shown)
    shown.close()
    warn("x")
    write_last_line("error: y")
    assert capsys.readouterr().err == "warning: x\nerror: y\n"
    bar.disable = True  # it could not be drawn any more
