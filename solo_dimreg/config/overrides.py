"""Read the overrides of a command line; if Hydra cannot read one, say how to write it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException

from solo_dimreg.config.values import OWN_BLOCKS
from solo_dimreg.errors import ConfigError

KEY = re.compile(r"[A-Za-z_][\w-]*([./@:][\w-]+)*")
PAIRS = {")": "(", "]": "[", "}": "{"}


def read_overrides(overrides: Iterable[str], sweep: bool = False) -> list[Override]:
    """Parse overrides as Hydra does; in a sweep, as under ``--multirun``, a key may have several values.

    Raises:
        ConfigError: The message names the first override that does not parse, why, and how to write it.
    """
    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException as error:
            raise ConfigError(f"override {text!r}: {_fault(text)}") from error
        several = override.is_sweep_override()
        if not override.key_or_group or (several and not sweep):
            raise ConfigError(f"override {text!r}: {_fault(text, several)}")
        parsed.append(override)
    return parsed


def _fault(text: str, several: bool = False) -> str:
    key, equals, value = text.partition("=")
    name = key.lstrip("+~")
    if not equals and KEY.fullmatch(name):
        return f"has no value; it must be {key}=VALUE."
    if not equals or not KEY.fullmatch(name):
        return (
            f"{name!r} is not a key; an override must be KEY=VALUE without spaces around '=', "
            "its KEY names with dots between them, such as optimizer.lr=0.1."
        )
    if bracket := _unbalanced(value):
        return f"the {bracket!r} in its value has no partner. A text must be quoted: {for_shell(key, value)}"
    if several:
        listed = f"{key}=[{value}]"
        return (
            "has several values, which only main_pretrain.py with --multirun takes. "
            f"A list must be {shlex.quote(listed)}, a text {for_shell(key, value)}"
        )
    return f"Hydra cannot read its value; it must be quoted: {for_shell(key, value)}"


def _unbalanced(value: str) -> str:
    """Return the first bracket of a value without a partner; return "" if all have one."""
    opened: list[str] = []
    for character in value:
        if character in PAIRS.values():
            opened.append(character)
        elif character in PAIRS and (not opened or opened.pop() != PAIRS[character]):
            return character
    return opened[-1] if opened else ""


def quoted(value: str) -> str:
    """Return the value in Hydra's quotes, which keep every character as it is."""
    # A backslash is doubled only before a quote and before an interpolation.
    escaped = re.sub(r"(\\*)(\$\{)", r"\1\1\\\2", value)
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", escaped)
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"


def quoted_override(key: str, path: Path) -> str:
    """Return a Hydra override that sets a key to a path; the path may hold any character."""
    return f"{key}={quoted(str(path))}"


def for_shell(key: str, value: str) -> str:
    """Return an override whose value is a text, as the user types it into a shell."""
    text = quoted(value)
    if "!" in text:  # an interactive shell replaces ! in double quotes, escaped or not
        return shlex.quote(f"{key}={text}")
    escaped = re.sub(r'([$`"\\])', r"\\\1", text)
    return f'{key}="{escaped}"'


def without_plus(overrides: Sequence[str], is_group: Callable[[str], bool]) -> list[str]:
    """Return the overrides such that each may set a key that the config lacks.

    The schema, which is checked afterwards, knows the keys. A config may lack a key that exists.

    Args:
        is_group: Whether a key names a group of configs, such as ``augmentations``, from which one is chosen.

    Raises:
        ConfigError: An override does not parse.
    """
    changed = []
    for text, override in zip(overrides, read_overrides(overrides), strict=True):
        key = override.key_or_group
        # The name of a group has no point, and looking for a group reads folders.
        chosen = "/" in key or override.package is not None or ("." not in key and is_group(key))
        if override.type is OverrideType.DEL or chosen or key.partition(".")[0] == "hydra":
            changed.append(text)
        else:
            changed.append("++" + text.lstrip("+"))
    return changed


def with_own_blocks(overrides: Iterable[str], is_group: Callable[[str], bool]) -> list[str]:
    """Return the overrides such that those of our blocks may set a key that the config lacks."""
    changed = []
    for text in overrides:
        key = text.lstrip("+").partition("=")[0]
        ours = key.partition(".")[0] in (*OWN_BLOCKS, "extra_keys") and not is_group(key)
        changed.append("++" + text.lstrip("+") if ours else text)
    return changed
