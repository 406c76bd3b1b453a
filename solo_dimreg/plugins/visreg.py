"""The built-in plugin of VISReg: the regularizer ``visreg``."""

from __future__ import annotations

from typing import Any, ClassVar

from solo_dimreg.nn import VISReg
from solo_dimreg.plugins.hookspecs import hookimpl


class VISRegRegularizer(VISReg):
    """`VISReg` on the embeddings, unless a config says otherwise."""

    defaults: ClassVar[dict[str, Any]] = {"where": "embeddings"}


@hookimpl
def register_regularizers() -> dict[str, type]:
    """Return the regularizer of scale, shape and centre of the embeddings."""
    return {"visreg": VISRegRegularizer}
