"""Values that are the same on all processes are logged without a message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import build, small, train_steps

from solo_dimreg.nn import Uniformity
from solo_dimreg.plugins import registered
from solo_dimreg.solo_learn import Host

METHODS = {"adadim": True, "directclr": True, "lejepa": True, "shuffled_dbn": False}


@pytest.fixture
def messages(host: Host, few_digits: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Count the values that Lightning would average over the processes in two steps."""

    def count(name: str, **changes: Any) -> int:
        calls: list[Any] = []
        strategy = host.pl.strategies.SingleDeviceStrategy
        monkeypatch.setattr(strategy, "reduce", lambda self, value, *_, **__: (calls.append(1), value)[1])
        train_steps(host, build(small(few_digits, name, **changes)), steps=2)
        return len(calls)

    return count


def test_our_terms_are_logged_without_a_message(messages: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(each.value.same_on_all_processes for each in registered("regularizers").values())
    block = {"uniformity": {"weight": 0.1}}
    without = messages("simclr")
    assert messages("simclr", regularizers=block) == without
    monkeypatch.setattr(Uniformity, "same_on_all_processes", False)  # as for a plugin that gathers nothing
    assert messages("simclr", regularizers=block) > without


@pytest.mark.parametrize("name", METHODS)
def test_our_methods_send_what_differs_between_processes(
    host: Host, messages: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    sent = messages(name)
    same = METHODS[name]
    monkeypatch.setattr(host.methods[name], "same_on_all_processes", not same)
    assert (messages(name) > sent) is same
