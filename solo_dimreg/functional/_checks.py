"""Argument checks: a wrong option raises a `ConfigError`, and a wrong tensor raises a `ValueError`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

from torch import Tensor

from solo_dimreg.errors import ConfigError, unknown


def check_features(name: str, x: Tensor) -> None:
    """Raise unless ``x`` is a floating-point tensor of shape (B, D) with B and D at least 1."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        found = str(x.dtype) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{name} must be a floating-point tensor of shape (B, D), got {found}.")
    if x.dim() != 2 or 0 in x.shape:
        raise ValueError(f"{name} must have shape (B, D) with B, D >= 1, got {tuple(x.shape)}.")


def check_pair(name1: str, x1: Tensor, name2: str, x2: Tensor) -> None:
    """Raise unless both tensors are features of one shape."""
    check_features(name1, x1)
    check_features(name2, x2)
    if x1.shape != x2.shape:
        raise ValueError(
            f"{name1} and {name2} must have the same shape, got {tuple(x1.shape)} and {tuple(x2.shape)}."
        )


def check_slices(slices: Tensor, x: Tensor) -> None:
    """Raise unless ``slices`` has shape (D, K), so that the features (B, D) can be projected on it."""
    check_features("slices", slices)
    if len(slices) != x.shape[1]:
        raise ValueError(f"slices must have shape ({x.shape[1]}, K), got {tuple(slices.shape)}.")


def check_int(name: str, value: Any, minimum: int, maximum: int | None = None) -> None:
    """Raise unless ``value`` is an integer of Python or NumPy in [minimum, maximum]; a bool is refused."""
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_integer or value < minimum or (maximum is not None and value > maximum):
        allowed = f">= {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        raise ConfigError(f"{name} must be an integer {allowed}, got {value!r}.")


def check_bool(name: str, value: Any) -> None:
    """Raise unless ``value`` is ``True`` or ``False``."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be true or false, got {value!r}.")


def check_positive(name: str, value: Any) -> None:
    """Raise unless ``value`` is a finite number above 0."""
    if not _is_number(value) or value <= 0:
        raise ConfigError(f"{name} must be a finite number > 0, got {value!r}.")


def check_number(name: str, value: Any) -> None:
    """Raise unless ``value`` is a finite number."""
    if not _is_number(value):
        raise ConfigError(f"{name} must be a finite number, got {value!r}.")


def check_between(name: str, value: Any, low: float, high: float = math.inf) -> None:
    """Raise unless ``value`` is a finite number in [low, high]."""
    if not _is_number(value) or not low <= value <= high:
        allowed = f"in [{low:g}, {high:g}]" if math.isfinite(high) else f">= {low:g}"
        raise ConfigError(f"{name} must be a finite number {allowed}, got {value!r}.")


def check_choice(name: str, value: Any, allowed: Iterable[str]) -> None:
    """Raise unless ``value`` is one of the ``allowed`` names."""
    if value not in list(allowed):  # it may be unhashable
        raise ConfigError(unknown(name, str(value), allowed))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
