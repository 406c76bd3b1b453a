"""Find the installed solo-learn, current or published, and register our methods with it."""

from solo_dimreg.solo_learn.base import (
    CLASSES,
    LINEAR_CONFIGS,
    NATIVE_SIZES,
    OWN_BLOCKS,
    Host,
    Run,
    base_name,
    device_count,
    plain,
)
from solo_dimreg.solo_learn.registration import find_host, generation, register

__all__ = [
    "CLASSES",
    "LINEAR_CONFIGS",
    "NATIVE_SIZES",
    "OWN_BLOCKS",
    "Host",
    "Run",
    "base_name",
    "device_count",
    "find_host",
    "generation",
    "plain",
    "register",
]
