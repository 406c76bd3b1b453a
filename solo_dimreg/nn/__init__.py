"""Modules around :mod:`solo_dimreg.functional`: options, state, and the gathering over processes."""

from solo_dimreg.nn.adadim import AdaDim
from solo_dimreg.nn.decorrelation import DecorrelatedBatchNorm, Decorrelation, ShuffledDBN
from solo_dimreg.nn.directclr import DirectCLR
from solo_dimreg.nn.effective_rank import EffectiveRank
from solo_dimreg.nn.ldreg import LDReg

__all__ = [
    "AdaDim",
    "DecorrelatedBatchNorm",
    "Decorrelation",
    "DirectCLR",
    "EffectiveRank",
    "LDReg",
    "ShuffledDBN",
]
