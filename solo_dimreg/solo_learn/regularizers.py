"""Turn a ``regularizers:`` block into weighted terms of a loss.

A block maps names of regularizers to their settings::

    regularizers:
      ldreg: {weight: 0.005, k: 64, warmup_epochs: 10}

All regularizers have ``weight`` (>= 0), ``warmup_epochs`` (the first epochs train without the term) and
``where`` (``features`` of the backbone or ``embeddings`` of the projector). The other keys are the parameters
of the regularizer's constructor.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from solo_dimreg.errors import ConfigError, nearest, unknown
from solo_dimreg.plugins import registered

PLACES = ("features", "embeddings")


class Term(nn.Module):
    """A regularizer with its weight, its warm-up epochs and its input."""

    def __init__(self, regularizer: nn.Module, weight: float, warmup_epochs: int, where: str) -> None:
        super().__init__()
        self.where = where
        self.regularizer = regularizer
        self.weight = weight
        self.warmup_epochs = warmup_epochs

    def active(self, epoch: int) -> bool:
        """Return whether the term takes part in the epoch, counted from 0."""
        return self.weight > 0 and epoch >= self.warmup_epochs

    def forward(self, views: Sequence[Tensor], momentum_views: Sequence[Tensor] = ()) -> Tensor:
        """Return the unweighted value of the regularizer, a scalar."""
        return self.regularizer(views, momentum_views)


def parameter_names(function: Callable[..., Any]) -> tuple[set[str], bool]:
    """Return the names of a callable's parameters, and whether it accepts others (``**kwargs``)."""
    parameters = inspect.signature(function).parameters.values()
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return named, any(p.kind is p.VAR_KEYWORD for p in parameters)


def check_keys(key: str, given: Mapping[str, Any], valid: set[str]) -> None:
    """Refuse a key that nothing reads.

    Raises:
        ConfigError: The message names the key, the value, the valid keys and the nearest of them.
    """
    for name, value in given.items():
        if name not in valid:
            raise ConfigError(
                f"{key}.{name}: unknown key (value {value!r}).{nearest(str(name), valid)} "
                f"Valid: {', '.join(sorted(valid))}."
            )


def key_of(block: str, options: Mapping[str, Any], error: Exception) -> str:
    """Return the key of the option that a constructor's error begins with, or the block's key without one."""
    named = [word for word in str(error).split()[:2] if word in options]
    return f"{block}.{named[0]}" if named else block


def _number(key: str, value: Any, integer: bool = False) -> Any:
    kinds = int if integer else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value) or value < 0:
        wanted = "a whole number" if integer else "a number"
        raise ConfigError(f"{key}: {value!r} is not allowed; it must be {wanted} >= 0.")
    return value


def _build_term(name: str, regularizer: type[nn.Module], options: Mapping[str, Any]) -> Term:
    key = f"regularizers.{name}"
    named, open_ended = parameter_names(regularizer)
    if not open_ended:
        check_keys(key, options, named | {"weight", "warmup_epochs", "where"})
    merged = {"warmup_epochs": 0, "where": "features", **getattr(regularizer, "defaults", {}), **options}
    if "weight" not in merged:
        raise ConfigError(f"{key}.weight: is missing; it must be a number >= 0.")
    weight = float(_number(f"{key}.weight", merged.pop("weight")))
    warmup_epochs = _number(f"{key}.warmup_epochs", merged.pop("warmup_epochs"), integer=True)
    where = merged.pop("where")
    if where not in PLACES:
        raise ConfigError(f"{key}.where: {unknown('place', str(where), PLACES)}")
    try:
        module = regularizer(**merged)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{key_of(key, merged, error)}: {error}") from error
    return Term(module, weight, warmup_epochs, where)


def build_terms(block: Mapping[str, Any] | None) -> dict[str, Term]:
    """Return the terms that a ``regularizers:`` block asks for, by name.

    The random state is restored, so that a method starts from the same weights with and without terms.

    Args:
        block: The block as plain containers; None or empty means no regularizers.

    Raises:
        ConfigError: A regularizer or a key is unknown, or a value is out of range.
    """
    if not block:
        return {}
    if not isinstance(block, Mapping):
        raise ConfigError(
            f"regularizers: {block!r} is not a mapping of names to settings, {{name: {{weight: …}}}}."
        )
    known = registered("regularizers")
    terms = {}
    with torch.random.fork_rng(devices=[]):
        for name, options in block.items():
            if name not in known:
                raise ConfigError(f"regularizers.{name}: {unknown('regularizer', str(name), known)}")
            if not isinstance(options, Mapping | None):
                raise ConfigError(
                    f"regularizers.{name}: {options!r} is not a mapping of settings, {{weight: …}}."
                )
            terms[name] = _build_term(name, known[name].value, options or {})
    return terms
