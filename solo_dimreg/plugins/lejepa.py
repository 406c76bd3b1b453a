"""The built-in plugin of LeJEPA: the method ``lejepa`` and the regularizer ``sigreg``."""

from __future__ import annotations

from typing import Any, ClassVar

from solo_dimreg.nn import SIGReg
from solo_dimreg.plugins.hookspecs import hookimpl


class SIGRegRegularizer(SIGReg):
    """`SIGReg` on the embeddings, unless a config says otherwise."""

    defaults: ClassVar[dict[str, Any]] = {"where": "embeddings"}


@hookimpl
def register_methods(host: Any) -> dict[str, type]:
    """Return the method LeJEPA for this solo-learn."""
    from solo_dimreg.methods.lejepa import make_lejepa

    return {"lejepa": make_lejepa(host.Method)}


@hookimpl
def register_regularizers() -> dict[str, type]:
    """Return the regularizer that makes the embeddings a Gaussian, by characteristic functions."""
    return {"sigreg": SIGRegRegularizer}
