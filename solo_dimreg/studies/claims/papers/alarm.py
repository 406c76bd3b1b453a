"""The claims about the monitor's alarm, which replay recorded curves through it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from solo_dimreg.config.blocks import AlarmSettings
from solo_dimreg.monitor.alarm import Alarm
from solo_dimreg.studies.claims import rows
from solo_dimreg.studies.claims.claim import Claim, Number, Results
from solo_dimreg.studies.claims.numbers import curve_of
from solo_dimreg.studies.suites import Row

PAPER = "The alarm of solo-dimreg"
PLACE = "monitor.alarm"
PUBLISHED = "our own rule; nothing is published"
USUAL = AlarmSettings()
METRIC, DRAWDOWN, PATIENCE = USUAL.metric, USUAL.drawdown, USUAL.patience
# The rows of which no paper says that they collapse. Left out are the rows that are meant to collapse (Min
# LID; none and bn; no projector, a linear one, few entries), dbn, whose groups collapse, and plain BYOL and
# SimSiam: the setting was chosen because BYOL loses dimensions in it.
HEALTHY = (
    *(rows.SIMCLR, rows.VICREG, rows.MOCO, rows.BARLOW),
    *(*rows.LDREG.values(), rows.LDREG_PAPER, rows.LDREG_L2),
    *(rows.TWO_LAYERS, rows.DIRECT, rows.SHUFFLED, *rows.SHUFFLED_END.values()),
    *(rows.ADADIM, rows.FIXED, rows.LINEAR, rows.COSINE),
)
FIXED_ON = (
    "The metric is the effective rank, the patience 3. On seeds 100 and 101 the largest drawdown that one of "
    "these rows held is 0.75, and the smallest of Min LID and none is 0.87; our default is halfway between. "
    "With one look per epoch, the alarm can trigger at the fourth of six looks at the earliest."
)
WHY_NOT_HALF = (
    "Half of the peak is the obvious first choice. On seeds 100 and 101 the peak of every row is its first "
    "look, after 15 steps, and most healthy rows lose more than half of it."
)


def alarm_claims() -> list[Claim]:
    """Return all claims about the alarm."""
    silent = "It does not trigger, in the mean over seeds, on any row that is not meant to collapse"
    return [
        _triggers(
            "alarm-minlid",
            "The alarm triggers when Min LID, at its largest weight, collapses.",
            rows.MINLID[-1],
        ),
        _triggers("alarm-none", "It triggers when feature decorrelation has no standardization.", rows.PLAIN),
        _silent("alarm-silent", f"{silent}.", DRAWDOWN, FIXED_ON),
        _silent("alarm-silent-half", f"{silent}, also with a drawdown of a half.", 0.5, WHY_NOT_HALF),
    ]


def _silent(name: str, sentence: str, drawdown: float, note: str) -> Claim:
    room = Number(
        f"{drawdown:g} minus the largest drawdown that any of {len(HEALTHY)} rows held for {PATIENCE} looks",
        lambda results: drawdown - _largest_held(results),
    )
    return Claim(name, PAPER, PLACE, sentence, PUBLISHED, HEALTHY, (room,), note=note)


def _triggers(name: str, sentence: str, row: Row) -> Claim:
    held = Number(
        f"the largest drawdown that {row.name} held for {PATIENCE} looks minus {DRAWDOWN:g}",
        lambda results: _held(curve_of(row, METRIC, results)) - DRAWDOWN,
    )
    left = Number(
        f"the part of {row.name}'s training that is left when the alarm triggers, 0 if it does not",
        lambda results: _left(curve_of(row, METRIC, results)),
    )
    return Claim(name, PAPER, PLACE, sentence, PUBLISHED, (row,), (held, left), note=FIXED_ON)


def first_trigger(curve: Sequence[float], drawdown: float = DRAWDOWN) -> int | None:
    """Return the look, counted from 0, at which the alarm first triggers; return None if it does not."""
    alarm = Alarm(drawdown, PATIENCE)
    return next((look for look, value in enumerate(curve) if alarm.look(value, look)), None)


def _held(curve: Sequence[float]) -> float:
    """Return the largest drawdown, in whole percent, with which the alarm would trigger.

    It is 0 if no drawdown triggers it, and NaN without a curve.
    """
    if not curve:
        return math.nan
    return next((p / 100 for p in range(99, 0, -1) if first_trigger(curve, p / 100) is not None), 0.0)


def _largest_held(results: Results) -> float:
    """Return the largest drawdown that any healthy row held; NaN if a row has no curve."""
    return float(np.max([_held(curve_of(row, METRIC, results)) for row in HEALTHY]))


def _left(curve: Sequence[float]) -> float:
    look = first_trigger(curve)
    if look is None:
        return 0.0 if curve else math.nan
    return 1 - (look + 1) / len(curve)
