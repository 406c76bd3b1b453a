"""Find the installed solo-learn, current or published, and register our methods with it."""

from solo_dimreg.solo_learn.base import Host, Run
from solo_dimreg.solo_learn.registration import register

__all__ = ["Host", "Run", "register"]
