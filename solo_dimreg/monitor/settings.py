"""Check the settings of a ``monitor:`` block and fill in the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from solo_dimreg.errors import ConfigError, unknown
from solo_dimreg.monitor.alarm import alarm_settings, check_enabled
from solo_dimreg.monitor.buffer import PAIR_METRICS, VIEW_METRICS
from solo_dimreg.plugins import registered
from solo_dimreg.solo_learn.regularizers import check_keys

PLACES = ("train", "val")
DEFAULTS: dict[str, Any] = {
    "enabled": True,
    "every_n_epochs": 1,
    "every_n_steps": None,
    "on": "train",
    "max_samples": 1024,
    "metrics": [
        "effective_rank",
        "lid",
        "matrix_entropy",
        "mutual_information",
        "off_diagonal_correlation",
        "mean_share",
        "alignment",
    ],
    "alarm": None,
}


def monitor_settings(block: Mapping[str, Any] | bool | None) -> dict[str, Any] | None:
    """Return a ``monitor:`` block with the defaults filled in; return None if the monitor is off.

    It is off without a block, with ``null`` or ``false`` in its place, and with ``enabled: false`` in it.

    Raises:
        ConfigError: A key or a metric is unknown, or a value is out of range.
    """
    if block is None or block is False:
        return None
    if not isinstance(block, Mapping):
        raise ConfigError(f"monitor: {block!r} is not a mapping of settings, {{every_n_epochs: 1}}.")
    # YAML 1.1 reads the key on as true, and JSON writes that as a string.
    block = {("on" if key in (True, "true") else key): value for key, value in block.items()}
    check_keys("monitor", block, set(DEFAULTS))
    settings = {**DEFAULTS, **block}
    check_enabled("monitor", settings["enabled"])
    if settings["every_n_steps"] is not None and "every_n_epochs" not in block:
        settings["every_n_epochs"] = None
    if settings["every_n_epochs"] is None and settings["every_n_steps"] is None:
        raise ConfigError(
            "monitor.every_n_epochs: None is allowed only with every_n_steps; without it, it must be a "
            "whole number >= 1."
        )
    for key, least in (("every_n_epochs", 1), ("every_n_steps", 1), ("max_samples", 3)):
        value = settings[key]
        if value is None and key != "max_samples":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(
                f"monitor.{key}: {value!r} is not allowed; it must be a whole number >= {least}."
            )
    if settings["on"] not in PLACES:
        raise ConfigError(f"monitor.on: {unknown('place', str(settings['on']), PLACES)}")
    metrics, known = settings["metrics"], {*registered("metrics"), *PAIR_METRICS, *VIEW_METRICS}
    if isinstance(metrics, str) or not isinstance(metrics, list | tuple) or not metrics:
        raise ConfigError(
            f"monitor.metrics: {metrics!r} is not allowed; it must be a list of {', '.join(sorted(known))}."
        )
    for metric in metrics:
        if metric not in known:
            raise ConfigError(f"monitor.metrics: {unknown('metric', str(metric), known)}")
        if metric in VIEW_METRICS and settings["on"] == "val" and "metrics" in block:
            raise ConfigError(f"monitor.metrics: {metric!r} needs two views, which only on: train has.")
    settings["alarm"] = alarm_settings(settings["alarm"], sorted(known))
    if settings["alarm"] is not None:
        metric = settings["alarm"]["metric"]
        name = metric.removeprefix("z_")
        if name in VIEW_METRICS and settings["on"] == "val":
            raise ConfigError(f"monitor.alarm.metric: {metric!r} needs two views, which only on: train has.")
        if name in PAIR_METRICS and name != metric:
            raise ConfigError(f"monitor.alarm.metric: {metric!r} covers both already; leave out the z_.")
        settings["metrics"] = [*dict.fromkeys([*metrics, name])]
    return settings if settings["enabled"] else None


def how_often(settings: Mapping[str, Any]) -> str:
    """Return in words how often metrics are measured, from :func:`monitor_settings`."""
    units = (("epoch", settings["every_n_epochs"]), ("step", settings["every_n_steps"]))
    said = [f"every {unit}" if n == 1 else f"every {n} {unit}s" for unit, n in units if n is not None]
    return " and ".join(said) + (" and at the end" if said != ["every epoch"] else "")
