"""The built-in plugin of DirectCLR: the method ``directclr``."""

from __future__ import annotations

from typing import Any

from solo_dimreg.plugins.hookspecs import hookimpl


@hookimpl
def register_methods(host: Any) -> dict[str, type]:
    """Return the method DirectCLR for this solo-learn."""
    from solo_dimreg.methods.directclr import make_directclr

    return {"directclr": make_directclr(host.Method)}
