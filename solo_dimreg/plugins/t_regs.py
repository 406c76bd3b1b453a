"""The built-in plugin of T-REGS: the regularizer ``t_regs``."""

from __future__ import annotations

from typing import Any, ClassVar

from solo_dimreg.nn import TREGS
from solo_dimreg.plugins.hookspecs import hookimpl


class TREGSRegularizer(TREGS):
    """T-REGS of the embeddings, where a config does not say otherwise."""

    defaults: ClassVar[dict[str, Any]] = {"where": "embeddings"}


@hookimpl
def register_regularizers() -> dict[str, type]:
    """The length of the minimum spanning tree, to be raised."""
    return {"t_regs": TREGSRegularizer}
