"""Methods, regularizers and diagnostics against dimensional collapse.

Importing this package imports nothing else: torch, solo-learn, Lightning and Hydra stay out until a name
needs them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from solo_dimreg.diagnosis.python import diagnose
    from solo_dimreg.monitor.callback import DimensionalityMonitor
    from solo_dimreg.monitor.tracker import DimensionalityTracker
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

# Each name is imported when it is first asked for, from solo_dimreg.nn unless it is here.
_ELSEWHERE = {
    "DimensionalityMonitor": "solo_dimreg.monitor.callback",
    "DimensionalityTracker": "solo_dimreg.monitor.tracker",
    "diagnose": "solo_dimreg.diagnosis.python",
}
# The modules that ``import solo_dimreg`` alone makes available.
_MODULES = ("distributed", "errors", "functional", "nn")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"solo_dimreg.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(_ELSEWHERE.get(name, "solo_dimreg.nn")), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
