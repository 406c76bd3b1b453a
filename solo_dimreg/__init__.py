"""Methods, regularizers and diagnostics against dimensional collapse.

Importing this package imports torch and nothing else: solo-learn, Lightning and Hydra stay out until asked
for.
"""

from importlib.metadata import PackageNotFoundError, version

from solo_dimreg.nn import (
    TREGS,
    AdaDim,
    DecorrelatedBatchNorm,
    Decorrelation,
    DirectCLR,
    EffectiveRank,
    KoLeo,
    LDReg,
    LeJEPA,
    ShuffledDBN,
    SIGReg,
    Uniformity,
    VISReg,
    WassersteinUniformity,
)

try:
    __version__ = version("solo-dimreg")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0.0.0+unknown"

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
    "__version__",
]
