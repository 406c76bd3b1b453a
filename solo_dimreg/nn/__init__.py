"""Modules around :mod:`solo_dimreg.functional`: options, state, and the gathering over processes."""

from solo_dimreg.nn.directclr import DirectCLR
from solo_dimreg.nn.ldreg import LDReg

__all__ = ["DirectCLR", "LDReg"]
