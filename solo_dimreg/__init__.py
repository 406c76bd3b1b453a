"""Methods, regularizers and diagnostics against dimensional collapse.

Importing this package imports torch and nothing else: solo-learn, Lightning and Hydra stay out until asked
for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from solo_dimreg.diagnosis.python import diagnose
    from solo_dimreg.monitor.callback import DimensionalityMonitor
    from solo_dimreg.monitor.tracker import DimensionalityTracker

__version__ = "0.2.0"

__all__ = [
    "TREGS",
    "AdaDim",
    "DecorrelatedBatchNorm",
    "Decorrelation",
    "DimensionalityMonitor",
    "DimensionalityTracker",
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
    "diagnose",
]

# Imported when they are first asked for: they bring timm, plots or Lightning with them.
_LATER = {
    "DimensionalityMonitor": "solo_dimreg.monitor.callback",
    "DimensionalityTracker": "solo_dimreg.monitor.tracker",
    "diagnose": "solo_dimreg.diagnosis.python",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(_LATER[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
