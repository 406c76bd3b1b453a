"""The built-in plugin of T-REGS: the regularizer ``t_regs``."""

from __future__ import annotations

from typing import Any, ClassVar

from solo_dimreg.nn import TREGS
from solo_dimreg.plugins.hookspecs import hookimpl


class TREGSRegularizer(TREGS):
    """`TREGS` on the embeddings, unless a config says otherwise."""

    defaults: ClassVar[dict[str, Any]] = {"where": "embeddings"}


@hookimpl
def register_regularizers() -> dict[str, type]:
    """Return the regularizer that lengthens the minimum spanning tree."""
    return {"t_regs": TREGSRegularizer}
