"""Only the listed messages are silenced."""

from __future__ import annotations

import logging
import warnings

import pytest

from solo_dimreg.quiet import LOGGERS, silence

HIDDEN = (
    "'pin_memory' argument is set as true but no accelerator is found",
    "The 'train_dataloader' does not have many workers which may be a bottleneck.",
    "Starting from v1.9.0, `tensorboardX` has been removed as a dependency",
)
SHOWN = (
    "GPU available but not used. Set `accelerator` and `devices` using `Trainer(accelerator='gpu')`.",
    "You defined a `validation_step` but have no `val_dataloader`. Skipping val loop.",
    "a warning of the user's own code",
)


def test_warnings() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        silence()
        for message in (*HIDDEN, *SHOWN):
            warnings.warn(message, UserWarning, stacklevel=1)
    assert [str(each.message) for each in caught] == list(SHOWN)


def test_lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    silence()
    logger = logging.getLogger(LOGGERS[1])
    monkeypatch.setattr(logger, "disabled", False)  # as a program leaves it that configures its logging anew
    logger.addHandler(caplog.handler)  # Lightning, if it is imported, keeps its lines from the root
    try:
        with caplog.at_level(logging.INFO, logger.name):
            logger.info("TPU available: False, using: 0 TPU cores")
            logger.info("GPU available: True (cuda), used: False")
    finally:
        logger.removeHandler(caplog.handler)
    assert [*dict.fromkeys(caplog.messages)] == ["GPU available: True (cuda), used: False"]
