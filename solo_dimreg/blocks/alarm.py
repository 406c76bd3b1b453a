"""Sounds when a monitored figure falls from its own peak: ``alarm:`` in a ``monitor:`` block.

    monitor:
      alarm: {metric: effective_rank, drawdown: 0.8, patience: 3, action: warn}   # or stop

An absolute threshold would have to be chosen anew for each data set and network. The peak is often that of a
network that has hardly begun to learn, and healthy trainings lose more than half of it, for which reason a
drawdown of 0.5 is too small: the claims ``alarm-silent`` and ``alarm-silent-half`` try both.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from solo_dimreg.blocks.regularizers import check_keys
from solo_dimreg.distributed import rank
from solo_dimreg.errors import ConfigError, unknown
from solo_dimreg.files import checkpoint_epoch

ACTIONS = ("warn", "stop")
GOOD = ".good"
DEFAULTS: dict[str, Any] = {"metric": "effective_rank", "drawdown": 0.8, "patience": 3, "action": "warn"}
# Of these a fall is no collapse, or they are not above 0.
NOT_FALLING = frozenset(
    ("alignment", "alpha_req", "mean_share", "off_diagonal_correlation", "self_clustering", "uniformity")
)


class Alarm:
    """Sounds when a figure has been at most ``(1 - drawdown)`` of its running peak for some looks in a row.

    Args:
        drawdown: The part of the peak that is lost, above 0 and below 1.
        patience: The number of looks.

    Attributes:
        peak: The largest value so far, 0 before any above it.
        count: Looks in a row, until now, of a figure that has fallen so far.
        since: The epoch of the first of them.
        good: The checkpoint from before it, empty without one.
        named: That of an alarm that has sounded, which is never removed.
    """

    def __init__(self, drawdown: float = DEFAULTS["drawdown"], patience: int = DEFAULTS["patience"]) -> None:
        self.drawdown, self.patience = drawdown, patience
        self.peak, self.count, self.since, self.good = 0.0, 0, 0, ""
        self.named = ""

    def look(self, value: float, epoch: int) -> bool:
        """Takes the next value; True at the one that completes the patience. NaN is no look."""
        if not math.isfinite(value):
            return False
        self.peak = max(self.peak, value)
        fallen = 0 < self.peak > value and value <= (1 - self.drawdown) * self.peak
        self.count = self.count + 1 if fallen else 0
        if self.count == 1:
            self.since = epoch
        return self.count == self.patience

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on with."""
        state = {"peak": self.peak, "count": self.count, "since": self.since, "good": self.good}
        return {**state, "named": self.named}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on with it."""
        self.peak, self.count, self.since = state["peak"], state["count"], state["since"]
        self.good, self.named = state["good"], state["named"]

    def keep_good(self, checkpoints: Sequence[Path]) -> None:
        """Saves the checkpoint from before a fall from being removed, until the fall has ended.

        solo-learn keeps the last one alone. Under its second name no search for checkpoints finds it.
        """
        if self.count > 1:
            return
        self.forget()
        before = [path for path in checkpoints if self.count and checkpoint_epoch(path) < self.since]
        if before:
            last = max(before, key=checkpoint_epoch)
            kept = last.with_name(last.name + GOOD)
            if not kept.exists():  # from before an interruption
                _link(last, kept)
            self.good = str(kept)

    def forget(self) -> None:
        """Removes it: the figure has risen again, or the training has ended before the alarm."""
        if self.good and self.good != self.named:
            Path(self.good).unlink(missing_ok=True)
        self.good = ""


def _link(path: Path, other: Path) -> None:
    try:
        os.link(path, other)
    except OSError:  # a file system without links
        shutil.copy2(path, other)


def alarm_settings(block: Mapping[str, Any] | None, known: Sequence[str]) -> dict[str, Any] | None:
    """An ``alarm:`` block with the defaults filled in; None without one.

    Args:
        block: The settings.
        known: The figures that can be monitored.

    Raises:
        ConfigError: an unknown key, or a value that is not allowed.
    """
    if block is None:
        return None
    if not isinstance(block, Mapping):
        raise ConfigError(f"monitor.alarm: {block!r} is not a mapping of settings, {{drawdown: 0.8}}.")
    check_keys("monitor.alarm", block, set(DEFAULTS))
    settings = {**DEFAULTS, **block}
    metric, drawdown, patience = settings["metric"], settings["drawdown"], settings["patience"]
    falling = sorted(set(known) - NOT_FALLING)
    if str(metric).removeprefix("z_") not in falling:
        raise ConfigError(f"monitor.alarm.metric: {unknown('falling figure', str(metric), falling)}")
    if isinstance(drawdown, bool) or not isinstance(drawdown, int | float) or not 0 < drawdown < 1:
        raise ConfigError(
            f"monitor.alarm.drawdown: {drawdown!r} is not allowed; it must be a number above 0 and below 1."
        )
    if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
        raise ConfigError(
            f"monitor.alarm.patience: {patience!r} is not allowed; it must be a whole number >= 1."
        )
    if settings["action"] not in ACTIONS:
        raise ConfigError(f"monitor.alarm.action: {unknown('action', str(settings['action']), ACTIONS)}")
    return settings


def describe(alarm: Alarm, method: str, metric: str, value: float) -> str:
    """The line of an alarm that sounds."""
    good = f"the last good checkpoint is {alarm.good}" if alarm.good else "no checkpoint is from before"
    return (
        f"{method} may have collapsed: {metric} is {value:.3g} and was {alarm.peak:.3g}; it has been "
        f"{alarm.drawdown:.0%} or more below its peak for {alarm.count} looks in a row, since epoch "
        f"{alarm.since}; {good}."
    )


def warn(message: str, logger: Any) -> None:
    """Tells of it in one line, and by an alert where the run is logged to wandb.

    Args:
        message: From :func:`describe`.
        logger: Lightning's ``WandbLogger``, or None.
    """
    if rank() != 0:
        return
    print(f"warning: {message}", file=sys.stderr, flush=True)
    if logger is not None:
        logger.experiment.alert(title="Dimensional collapse", text=message, level="WARN")
