"""Fits docstrings to mkdocstrings: Sphinx roles become references that it checks, examples become code."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:func|class|meth|mod|data|attr):`([\w.]+)`")
EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)


class Roles(griffe.Extension):
    """Rewrites ``:func:`package.name``` as a Markdown cross-reference to that object."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Rewrite every docstring of a package that griffe has read."""
        self._rewrite(pkg)

    def _rewrite(self, obj: griffe.Object) -> None:
        if obj.docstring is not None:
            text = ROLE.sub(lambda found: _link(obj, found[1]), obj.docstring.value)
            obj.docstring.value = EXAMPLE.sub("Examples:", text)  # the section of Google's style
        for member in obj.members.values():
            if not member.is_alias:
                self._rewrite(member)


def _link(obj: griffe.Object, name: str) -> str:
    """Return a reference to a whole path, or to a name that the scope of the object knows."""
    first, dot, rest = name.partition(".")
    target = name if name.startswith("solo_dimreg.") else obj.resolve(first) + dot + rest
    return f"[`{name.rpartition('.')[2]}`][{target}]"
