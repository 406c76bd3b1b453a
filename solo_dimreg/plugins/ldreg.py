"""The built-in plugin of LDReg: the regularizer ``ldreg``."""

from __future__ import annotations

from solo_dimreg.nn import LDReg
from solo_dimreg.plugins.hookspecs import hookimpl


@hookimpl
def register_regularizers() -> dict[str, type]:
    """LDReg itself."""
    return {"ldreg": LDReg}
