"""Values that are the same on all processes are logged without a message."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from support import build, small, train_steps

from solo_dimreg.nn import Uniformity
from solo_dimreg.plugins import registered
from solo_dimreg.solo_learn import Host
from solo_dimreg.solo_learn.method import average_over_processes

METHODS = {"adadim": True, "directclr": True, "lejepa": True, "shuffled_dbn": False}


@pytest.fixture
def messages(host: Host, few_digits: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Count the values of two steps that Lightning is asked to average over the processes."""
    log = host.pl.LightningModule.log

    def count(name: str, **changes: Any) -> int:
        sent: list[Any] = []

        def count_and_log(self: Any, *args: Any, **options: Any) -> None:
            if options.get("sync_dist") and not options.get("rank_zero_only"):
                sent.append(options)
            log(self, *args, **options)

        monkeypatch.setattr(host.pl.LightningModule, "log", count_and_log)
        train_steps(host, build(small(few_digits, name, **changes)), steps=2)
        return len(sent)

    return count


@pytest.mark.parametrize("same", [True, False])
def test_lightning_sends_no_message_for_what_is_the_same(host: Host, same: bool) -> None:
    result = importlib.import_module(f"{host.pl.__name__}.trainer.connectors.logger_connector.result")
    options, sent = average_over_processes(same), []
    sync = result._Sync(
        fn=lambda value, **_: sent.append(value),
        _should=options["sync_dist"],
        rank_zero_only=options["rank_zero_only"],
    )
    sync(1.0)
    assert sent == ([] if same else [1.0])


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
