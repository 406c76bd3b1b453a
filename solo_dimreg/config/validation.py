"""Compare a config with the schema, and say in one line what is wrong."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, get_args

import torch
from pydantic import BaseModel, ValidationError

from solo_dimreg.config.schema import Common, OptimizerOptions
from solo_dimreg.errors import ConfigError, nearest

if TYPE_CHECKING:
    from solo_dimreg.solo_learn import Host

# Keys in solo-learn's configs that nothing reads.
IDLE = {"augmentations_cfg", "wandb_cfg"}
IDLE_OPTIONS = {"base_tau_momentum", "final_tau_momentum", "momentum_classifier", "temperature"}
# Endings of names in method_kwargs whose values must be whole numbers; methods choose their own names.
SIZES = ("_dim", "_size", "_iters", "num_prototypes", "_depth", "num_heads", "num_groups")

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


def check_schema(settings: Mapping[str, Any], schema: type[Common], allowed: set[str]) -> None:
    """Refuse unknown keys, wrong types and values out of range, at every level.

    Args:
        settings: The config in plain containers.
        schema: ``Pretraining`` or ``Linear``.
        allowed: Further dotted keys, which a newer solo-learn, its trainer or a plugin reads. The keys that
            the config itself lists under ``extra_keys`` are allowed too.

    Raises:
        ConfigError: The message names the first such key, its value and what is right.
    """
    listed = settings.get("extra_keys")
    extra = {*allowed, *IDLE, *(listed if isinstance(listed, list) else ())}
    try:
        schema.model_validate(settings)
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            key = _dotted(fault["loc"], settings)
            if fault["type"] == "extra_forbidden":
                if key in extra:
                    continue
                raise ConfigError(_unknown_key(key, fault["input"], schema, extra)) from error
            raise ConfigError(_wrong(key, fault)) from error
    _check_optimizer_options(settings["optimizer"])


def _dotted(parts: tuple[Any, ...], settings: Mapping[str, Any]) -> str:
    """Return the dotted key of a fault.

    Behind a value, pydantic also names the alternative that it tried, which is no key.
    """
    names: list[str] = []
    level: Any = settings
    for part in parts:
        if not isinstance(level, Mapping | list):
            break
        names.append(str(part))
        inside = isinstance(level, Mapping) or part < len(level)
        level = (level.get(part) if isinstance(level, Mapping) else level[part]) if inside else None
    return ".".join(names)


def _unknown_key(key: str, value: Any, schema: type[BaseModel], extra: set[str]) -> str:
    parent, _, name = key.rpartition(".")
    valid = set(_fields(schema, parent.split(".") if parent else []))
    valid |= {each.removeprefix(f"{parent}.") for each in extra if each.rpartition(".")[0] == parent}
    listed = "" if not parent else f" Valid: {', '.join(sorted(valid))}."
    return f"{key}: unknown key (value {value!r}).{nearest(name, valid)}{listed}"


def _fields(schema: Any, path: list[str]) -> list[str]:
    """Return the names of the settings in a block of the schema."""
    for part in path:
        if part.isdigit():
            continue
        annotation = schema.model_fields[part].annotation
        kinds = [annotation, *get_args(annotation)]
        kinds += [inner for kind in kinds for inner in get_args(kind)]
        schema = next(kind for kind in kinds if inspect.isclass(kind) and issubclass(kind, BaseModel))
    return list(schema.model_fields)


def _wrong(key: str, fault: Mapping[str, Any]) -> str:
    if fault["type"] == "missing":
        return f"{key}: is missing from the config; it must be there."
    says = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    for theirs, ours in WORDS.items():
        says = says.replace(theirs, ours)
    return f"{key}: {fault['input']!r} is not allowed; it must be {says}."


def _check_optimizer_options(optimizer: Mapping[str, Any]) -> None:
    """Refuse keyword arguments that the chosen optimizer does not have, or that are out of range."""
    options = optimizer.get("kwargs") or {}
    if not isinstance(options, Mapping):
        raise ConfigError(f"optimizer.kwargs: {options!r} is not a mapping of settings.")
    valid = set(_optimizer_parameters(optimizer["name"]))
    for name, value in options.items():
        if name not in valid:
            raise ConfigError(
                f"optimizer.kwargs.{name}: unknown key (value {value!r}) of {optimizer['name']}."
                f"{nearest(str(name), valid)} Valid: {', '.join(sorted(valid))}."
            )
    known = {name: value for name, value in options.items() if name in OptimizerOptions.model_fields}
    try:
        OptimizerOptions.model_validate(known)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise ConfigError(_wrong(f"optimizer.kwargs.{fault['loc'][0]}", fault)) from error


def _optimizer_parameters(name: str) -> Iterator[str]:
    if name == "lars":
        yield from ("momentum", "eta", "clip_lr", "exclude_bias_n_norm", "eps", "dampening", "nesterov")
        return
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    fixed = ("self", "params", "lr", "weight_decay")
    yield from (each for each in inspect.signature(kinds[name]).parameters if each not in fixed)


def check_method_options(options: Mapping[str, Any]) -> None:
    """Refuse values of ``method_kwargs`` that no method of solo-learn's or ours can use.

    Raises:
        ConfigError: The message names the first such key, its value and what is right.
    """
    for name, value in options.items():
        for number in value if isinstance(value, list | tuple) else [value]:
            usable = isinstance(number, int | float) and not isinstance(number, bool)
            if name.endswith(SIZES) and not (usable and isinstance(number, int) and number >= 1):
                if name == "queue_size" and number == 0:  # no queue, for SwAV; others are refused elsewhere
                    continue
                wanted = "a whole number >= 1"
            elif (
                "temperature" in name
                and not name.endswith("_epochs")
                and not (usable and math.isfinite(number) and number > 0)
            ):
                wanted = "a number > 0"
            elif name.endswith(("weight", "lamb")) and not (usable and math.isfinite(number) and number >= 0):
                wanted = "a number >= 0"
            elif name == "mask_ratio" and not (usable and 0 < number < 1):
                wanted = "a number above 0 and below 1"
            else:
                continue
            raise ConfigError(f"method_kwargs.{name}: {value!r} is not allowed; it must be {wanted}.")


def keys_of_host(host: Host) -> set[str]:
    """Return the dotted keys that the installed Lightning's trainer accepts or solo-learn's code reads."""
    keys = set(inspect.signature(host.pl.Trainer.__init__).parameters) - {"self"}
    for name in ("solo.args.pretrain", "solo.args.linear", "solo.methods.base"):
        try:
            source = inspect.getsource(import_module(name))
        except (ImportError, OSError):
            continue
        keys |= {key.rstrip(".") for key in re.findall(r"\bcfg\.([a-z_][\w.]*)", source)}
        keys |= set(re.findall(r"omegaconf_select\(\s*\w+,\s*\"([\w.]+)\"", source))
    return keys


def options_of_method(host: Host, name: str) -> set[str]:
    """Return the keys of ``method_kwargs`` that solo-learn's method reads; empty if not known."""
    found: set[str] = set()
    for kind in host.methods[name].__mro__:
        if not kind.__module__.startswith("solo.") or kind in (host.base_method, host.momentum_method):
            continue
        if host.generation == "current":
            found |= set(re.findall(r"method_kwargs\.(\w+)", inspect.getsource(kind)))
        else:
            found |= set(inspect.signature(kind.__init__).parameters) - {"self", "args", "kwargs"}  # type: ignore[misc]
    return found


def check_method_keys(host: Host, name: str, options: Mapping[str, Any]) -> None:
    """Refuse options that a method of solo-learn would ignore.

    Our own methods refuse unknown options themselves.
    """
    if issubclass(host.methods[name], host.Method):
        return
    valid = options_of_method(host, name)
    for key, value in options.items():
        if valid and key not in valid | IDLE_OPTIONS:
            raise ConfigError(
                f"method_kwargs.{key}: unknown key (value {value!r}) of {name}.{nearest(key, valid)} "
                f"Valid: {', '.join(sorted(valid))}."
            )
        if isinstance(value, str) or (isinstance(value, float) and not math.isfinite(value)):
            raise ConfigError(
                f"method_kwargs.{key}: {value!r} is not allowed; it must be a number, true or false."
            )
