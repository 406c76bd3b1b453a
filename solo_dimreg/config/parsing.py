"""Check a mapping of settings with a pydantic model, and say in one line what is wrong."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from solo_dimreg.config.values import REQUIRED
from solo_dimreg.errors import ConfigError, nearest, unknown

# pydantic's words about a wrong value, in the style of our other messages.
WORDS = {
    "greater than or equal to": ">=",
    "less than or equal to": "<=",
    "greater than": ">",
    "less than": "<",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid dictionary": "a mapping of settings",
    "a valid list": "a list",
    "a valid string": "text",
    "List should have at least": "a list of at least",
    "List should have at most": "a list of at most",
    " after validation": "",
}


class Block(BaseModel):
    """A mapping of settings that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Refusal(ValueError):
    """A validator's own sentence about a value.

    Args:
        sentence: What follows the key in the message.
        inside: The key inside the validated block that the sentence is about.
    """

    def __init__(self, sentence: str, inside: str = "") -> None:
        super().__init__(sentence)
        self.inside = inside


Kind = TypeVar("Kind", bound=BaseModel)


def parse(model: type[Kind], content: Mapping[str, Any], allowed: Collection[str] = ()) -> Kind:
    """Return the settings as the model, after refusing unknown keys, wrong types and values out of range.

    Args:
        allowed: Dotted keys that the model lacks and something else reads; the result is without them.

    Raises:
        ConfigError: The message names the first wrong key, its value and what is right.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        unread = []
        for fault in error.errors(include_url=False):
            key = _dotted(fault["loc"], content)
            if fault["type"] != "extra_forbidden":
                raise ConfigError(_describe(key, fault)) from error
            if key not in allowed:
                parent, _, name = key.rpartition(".")
                valid = set(_fields(model, parent.split(".") if parent else []))
                valid |= {each.rpartition(".")[2] for each in allowed if each.rpartition(".")[0] == parent}
                listed = valid if parent else ()
                raise ConfigError(f"{key}: {unknown_key(name, fault['input'], valid, listed)}") from error
            unread.append(fault["loc"])
    return parse(model, _without(content, unread))


def _dotted(parts: tuple[Any, ...], content: Mapping[str, Any]) -> str:
    """Return the dotted key of a fault.

    Behind a value, pydantic also names the alternative that it tried, which is no key.
    """
    names: list[str] = []
    level: Any = content
    for part in parts:
        if not isinstance(level, Mapping | list):
            break
        names.append(str(part))
        inside = isinstance(level, Mapping) or part < len(level)
        level = (level.get(part) if isinstance(level, Mapping) else level[part]) if inside else None
    return ".".join(names)


def _describe(key: str, fault: Mapping[str, Any]) -> str:
    said = fault.get("ctx", {}).get("error")
    if isinstance(said, ConfigError):  # a complete message
        return str(said)
    if isinstance(said, Refusal):
        return f"{'.'.join(filter(None, (key, said.inside)))}: {said}"
    if fault["type"] == "missing":
        return f"{key}: is missing from the config; it must be there."
    if fault["type"] == "model_type":
        return f"{key}: {fault['input']!r} is not allowed; it must be a mapping of settings."
    says = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    for theirs, ours in WORDS.items():
        says = says.replace(theirs, ours)
    return f"{key}: {fault['input']!r} is not allowed; it must be {says}."


def _fields(model: Any, path: list[str]) -> list[str]:
    """Return the names of the settings in a block of the model."""
    for part in path:
        if part.isdigit():
            continue
        annotation = model.model_fields[part].annotation
        kinds = [annotation, *get_args(annotation)]
        kinds += [inner for kind in kinds for inner in get_args(kind)]
        model = next(kind for kind in kinds if inspect.isclass(kind) and issubclass(kind, BaseModel))
    return list(model.model_fields)


def _without(content: Mapping[str, Any], places: Iterable[tuple[Any, ...]]) -> Mapping[str, Any]:
    content = copy.deepcopy(content)
    for *parents, name in places:
        level: Any = content
        for part in parents:
            level = level[part]
        del level[name]
    return content


def check_keys(block: str, given: Mapping[str, Any], valid: Iterable[str], owner: str = "") -> None:
    """Raise a ConfigError for a key that nothing reads.

    Args:
        block: The dotted key of the settings, for the message.
        owner: What reads them, if that is not the block itself.
    """
    valid = set(valid)
    for name, value in given.items():
        if name not in valid:
            raise ConfigError(f"{block}.{name}: {unknown_key(str(name), value, valid, valid, owner)}")


def unknown_key(name: str, value: Any, valid: Iterable[str], listed: Iterable[str], owner: str = "") -> str:
    """Return the sentence about a key that nothing reads, with the nearest of the valid keys."""
    names = f" Valid: {', '.join(sorted(listed))}." if listed else ""
    return f"unknown key (value {value!r}){owner and f' of {owner}'}.{nearest(name, valid)}{names}"


def number(wanted: str, fits: Callable[[float], bool]) -> BeforeValidator:
    """Return a validator for a finite number that fits; the message says what is wanted."""

    def check(value: Any) -> Any:
        usable = isinstance(value, int | float) and not isinstance(value, bool)
        if not (usable and math.isfinite(value) and fits(value)):
            raise ValueError(wanted)
        return value

    return BeforeValidator(check)


def whole(least: int) -> BeforeValidator:
    """Return a validator for a whole number that is at least ``least``."""

    def check(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"a whole number >= {least}")
        return value

    return BeforeValidator(check)


def one_of(kind: str, names: Iterable[str]) -> BeforeValidator:
    """Return a validator for one of the names, which the message calls a ``kind``."""

    def check(value: Any) -> Any:
        if value is not None and value not in names:
            raise Refusal(unknown(kind, str(value), names))
        return value

    return BeforeValidator(check)


def mapping(example: str) -> BeforeValidator:
    """Return a validator for a block or None; the message about another value shows the example."""

    def check(value: Any) -> Any:
        if not isinstance(value, Mapping | None):
            raise Refusal(f"{value!r} is not a mapping of settings, {example}.")
        return value

    return BeforeValidator(check)


def options_of_callable(function: Callable[..., Any]) -> tuple[dict[str, Any], bool]:
    """Return a callable's parameters with their defaults, and whether it accepts others (``**kwargs``)."""
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    named = (p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
    options = {p.name: REQUIRED if p.default is p.empty else p.default for p in named}
    return options, any(p.kind is p.VAR_KEYWORD for p in parameters)


def option_in(options: Iterable[str], error: Exception) -> str:
    """Return the option that a constructor's error begins with, or "" if it begins with none."""
    return next((word for word in str(error).split()[:2] if word in options), "")
