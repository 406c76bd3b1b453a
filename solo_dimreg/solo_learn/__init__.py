"""Find the installed solo-learn, current or published, and register our methods with it."""

from solo_dimreg.solo_learn.base import (
    CLASSES,
    LINEAR_CONFIGS,
    NATIVE_SIZES,
    Host,
    Run,
)
from solo_dimreg.solo_learn.registration import find_host, generation, register

__all__ = [
    "CLASSES",
    "LINEAR_CONFIGS",
    "NATIVE_SIZES",
    "Host",
    "Run",
    "find_host",
    "generation",
    "register",
]
