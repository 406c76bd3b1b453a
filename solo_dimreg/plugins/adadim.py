"""The built-in plugin of AdaDim: the method ``adadim``."""

from __future__ import annotations

from typing import Any

from solo_dimreg.plugins.hookspecs import hookimpl


@hookimpl
def register_methods(host: Any) -> dict[str, type]:
    """Return the method AdaDim for this solo-learn."""
    from solo_dimreg.methods.adadim import make_adadim

    return {"adadim": make_adadim(host.Method)}
