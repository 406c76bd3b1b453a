"""Turns Sphinx roles in docstrings into cross-references that mkdocstrings checks and links."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:func|class|meth|mod|data|attr):`(~?)([\w.]+)`")


class Roles(griffe.Extension):
    """Rewrites ``:func:`package.name``` as a Markdown cross-reference to that object."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of each object that griffe reads."""
        if obj.docstring is not None:
            obj.docstring.value = ROLE.sub(lambda found: self._link(obj, found), obj.docstring.value)

    @staticmethod
    def _link(obj: griffe.Object, found: re.Match[str]) -> str:
        name = found[2]
        # A name without a dot is one of the same module.
        target = name if "." in name else f"{obj.module.path}.{name}"
        return f"[`{name.rpartition('.')[2]}`][{target}]"
