"""Give a class its base only when it is used, since the two solo-learns and Lightnings have their own."""

from __future__ import annotations

from typing import Any

# The base of a mixin: object when the program runs, and any class for the type checker.
Mixin: Any = object


def mixed_in(*parents: type, **attributes: Any) -> type:
    """Return a class with the name, module and docstring of its first parent, and with these attributes."""
    first = parents[0]
    own = {"__module__": first.__module__, "__doc__": first.__doc__}
    return type(first.__name__, parents, {**own, **attributes})
