"""Modules around ``solo_dimreg.functional``: they hold options and state, and gather over processes."""

from solo_dimreg.nn.adadim import AdaDim
from solo_dimreg.nn.decorrelation import DecorrelatedBatchNorm, Decorrelation, ShuffledDBN
from solo_dimreg.nn.directclr import DirectCLR
from solo_dimreg.nn.effective_rank import EffectiveRank
from solo_dimreg.nn.ldreg import LDReg
from solo_dimreg.nn.lejepa import LeJEPA, SIGReg
from solo_dimreg.nn.t_regs import TREGS
from solo_dimreg.nn.uniformity import KoLeo, Uniformity, WassersteinUniformity
from solo_dimreg.nn.visreg import VISReg

__all__ = [
    "TREGS",
    "AdaDim",
    "DecorrelatedBatchNorm",
    "Decorrelation",
    "DirectCLR",
    "EffectiveRank",
    "KoLeo",
    "LDReg",
    "LeJEPA",
    "SIGReg",
    "ShuffledDBN",
    "Uniformity",
    "VISReg",
    "WassersteinUniformity",
]
