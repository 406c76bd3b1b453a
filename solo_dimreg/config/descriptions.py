"""Describe methods, regularizers, backbones and metrics from their own code."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from solo_dimreg.config.blocks import RegularizerSettings
from solo_dimreg.config.parsing import options_of_callable
from solo_dimreg.config.values import REQUIRED

if TYPE_CHECKING:
    from solo_dimreg.solo_learn import Host

# Base classes from here, and our hooks around a method of solo-learn, describe nothing of a class.
GENERAL = (
    *("builtins", "torch.", "lightning", "pytorch_lightning"),
    *("solo.methods.base", "solo_dimreg.solo_learn."),
)
# The settings that every regularizer has, beside the options of its class.
COMMON: dict[str, Any] = {
    name: REQUIRED if field.is_required() else field.default
    for name, field in RegularizerSettings.model_fields.items()
    if name not in ("kind", "options")
}


def description(value: Any) -> str:
    """Return the first sentence of the docstring of a class or a function; without one, return its name.

    solo-learn documents the constructors of its methods. A variant of a method is described as the method
    with what the variant adds.
    """
    given = f", with {value.adds}" if hasattr(value, "adds") else ""
    while hasattr(value, "func"):  # a functools.partial
        if value.keywords:
            given = " (" + ", ".join(f"{key} = {option}" for key, option in value.keywords.items()) + ")"
        # What a partial hands a function to is described by that function.
        value = next((each for each in value.args if callable(each)), value.func)
    text = next((inspect.cleandoc(each) for each in _documented(value) if each), value.__name__)
    sentence = re.sub(r"\s*\[\d[^\]]*\]", "", " ".join(text.partition("\n\n")[0].split()))  # no references
    return sentence.partition(". ")[0].rstrip(".") + given


def _documented(value: Any) -> Iterator[str | None]:
    if not inspect.isclass(value):
        yield value.__doc__
        return
    kinds = [kind for kind in value.__mro__ if not kind.__module__.startswith(GENERAL)]
    for kind in kinds:
        yield kind.__doc__
        yield getattr(vars(kind).get("__init__"), "__doc__", None)


def options_of_regularizer(kind: Any) -> dict[str, Any]:
    """Return the settings of a regularizer in a ``regularizers:`` block, with their defaults."""
    return {**COMMON, **options_of_callable(kind)[0], **vars(kind).get("defaults", {})}


def options_of(host: Host, name: str) -> dict[str, Any]:
    """Return the settings of a method of either solo-learn or of a plugin, with their defaults.

    A key of ``method_kwargs`` has its name; a setting of the method's own term has its full key.
    """
    kind: Any = host.methods[name]
    ours = issubclass(kind, host.Method)
    options: dict[str, Any] = kind.own_options() if ours else host.method_options(name)
    for term, settings in host.terms(name, {}).items():
        options |= {f"regularizers.{term}.{key}": value for key, value in settings.items()}
    return options
