"""An alarm that triggers when the representation collapses: ``alarm:`` in a ``monitor:`` block.

    monitor:
      alarm: {metric: effective_rank, drawdown: 0.8, patience: 3, action: warn}   # stop, rollback or remedy

A rank is compared with its own peak, since an absolute threshold would have to be chosen anew for each data
set and network. The peak often belongs to a network that has hardly begun to learn, and healthy trainings
lose more than half of it. A drawdown of 0.5 is therefore too small: the claims ``alarm-silent`` and
``alarm-silent-half`` test both values.

The features can keep a part of their rank while the embeddings come near one point or one line. How near is a
share of at most 1, so that it has an absolute limit.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from solo_dimreg.distributed import rank
from solo_dimreg.errors import write_line
from solo_dimreg.files import checkpoint_place

GOOD = ".good"
NEVER = 2**62
SETTINGS = ("drawdown", "patience", "label")  # what else an alarm has is its state


class Alarm:
    """An alarm that triggers when a metric stays at most ``(1 - drawdown)`` of its running peak.

    It also counts looks at which another metric is beyond its limit.

    Args:
        drawdown: The lost part of the peak, above 0 and below 1.
        patience: The number of looks in a row after which the alarm triggers.

    Attributes:
        peak: The largest value so far; 0 before any value above 0.
        count: The number of looks in a row, until now, at which the metric had fallen so far, or another one
            was beyond its limit.
        since, since_step: The epoch, counted from 0, and the number of steps at the first of these looks.
        good: The checkpoint from before the fall; empty without one.
        named: The checkpoint of an alarm that has triggered; it is never removed.
        responses: How often a rollback or a remedy has followed.
        restored, restored_step: The epoch and the number of steps at the last rollback, or at the first look
            after a remedy that finds no fall: older checkpoints are of the collapsed network, and never good.
        remedy_from: The epoch from which the remedy counts its warm-up; None before it is added.
        quiet: The number of epochs that do not count, since a term of the remedy is still in its warm-up.
        label: A suffix that tells apart the kept checkpoints of several alarms in one training.
    """

    def __init__(self, drawdown: float = 0.8, patience: int = 3) -> None:
        self.drawdown, self.patience = drawdown, patience
        self.peak, self.count, self.since, self.since_step = 0.0, 0, 0, 0
        self.good = self.named = self.label = ""
        self.responses, self.restored, self.restored_step = 0, -1, 0
        self.remedy_from: int | None = None
        self.quiet = 0

    def look(self, value: float, epoch: int, step: int = 0, beyond: bool | None = None) -> bool:
        """Take the next value; return True if it completes the patience.

        ``beyond`` says whether another metric is beyond its limit; None if there is no such metric. Then NaN
        does not count as a look.
        """
        if not math.isfinite(value) and beyond is None:
            return False
        fallen = self.has_fallen(value) or bool(beyond)
        if math.isfinite(value):
            self.peak = max(self.peak, value)
        self.count = self.count + 1 if fallen and epoch >= self.quiet else 0
        if not fallen and self.restored == NEVER:
            self.restored, self.restored_step = epoch, step
        if self.count == 1:
            self.since, self.since_step = epoch, step
        return self.count == self.patience

    def has_fallen(self, value: float) -> bool:
        """Return whether a value is so far below the peak."""
        return 0 < self.peak > value and value <= (1 - self.drawdown) * self.peak

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run needs."""
        return {name: value for name, value in vars(self).items() if name not in SETTINGS}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        vars(self).update(state)  # older ones have fewer

    def keep_good(self, checkpoints: Sequence[Path]) -> None:
        """Keep the checkpoint from before a fall until the fall has ended.

        solo-learn keeps only the last checkpoint. The second name hides the kept one from searches for
        checkpoints.
        """
        if self.count > 1:
            return
        self.forget()
        if self.count < 1:
            return
        before = [
            path
            for path in checkpoints
            if _is_before(path, self.since, self.since_step)
            and not _is_before(path, self.restored, self.restored_step)
        ]
        if self.restored >= 0 and not before:
            self.good = self.named  # the network has not been good since
        if before:
            last = max(before, key=checkpoint_place)
            kept = last.with_name(f"{last.name}{self.label}{GOOD}")
            if not kept.exists():  # it may exist since before an interruption
                _link(last, kept)
            self.good = str(kept)

    def go_on(self, restored: int, restored_step: int) -> None:
        """Count anew after a rollback (its epoch and step) or a remedy (``NEVER``); the peak stays."""
        self.count, self.responses = 0, self.responses + 1
        self.restored, self.restored_step = restored, restored_step

    def forget(self) -> None:
        """Remove the kept checkpoint, because the metric has risen again or the training has ended."""
        if self.good and self.good != self.named:
            Path(self.good).unlink(missing_ok=True)
        self.good = ""


def _is_before(checkpoint: Path, since: int, since_step: int) -> bool:
    """Return whether a checkpoint is from before a step, or before an epoch if its name has no step."""
    epoch, step = checkpoint_place(checkpoint)
    return step < since_step if step >= 0 and since_step else epoch < since


def _link(path: Path, other: Path) -> None:
    try:
        os.link(path, other)
    except OSError:  # a file system without links
        shutil.copy2(path, other)


def describe(
    alarm: Alarm, method: str, metric: str, value: float, beyond: Mapping[str, tuple[float, float]]
) -> str:
    """Return the line of an alarm that is triggered; epochs are counted from 1.

    ``beyond`` has the value and the limit of each metric that is beyond it.
    """
    good = f"the last good checkpoint is {alarm.good}" if alarm.good else "there is no checkpoint from before"
    often = f" for {alarm.count} looks in a row" if alarm.count > 1 else ""
    why = [f"{name} is {share:.3g} (the limit is {limit:g})" for name, (share, limit) in beyond.items()]
    if alarm.has_fallen(value):
        why.append(
            f"{metric} is {value:.3g} and was {alarm.peak:.3g} (a fall of {alarm.drawdown:.0%} or more)"
        )
    return (
        f"{method} may have collapsed: {', and '.join(why)}; it has looked so{often}, since epoch "
        f"{alarm.since + 1} (step {alarm.since_step}); {good}."
    )


def send_alert(message: str, logger: Any) -> None:
    """Print the alarm in one line, and send an alert if the run has a ``WandbLogger`` of Lightning's."""
    if rank() != 0:
        return
    write_line(f"warning: {message}")
    if logger is not None:
        logger.experiment.alert(title="Dimensional collapse", text=message, level="WARN")
