"""The pluggy layer: hook specifications, the manager, and one module per built-in plugin.

A plugin is a module or an object with functions marked ``@hookimpl``. Its package names it in the entry-point
group ``solo_dimreg``.
"""

from solo_dimreg.plugins.hookspecs import hookimpl
from solo_dimreg.plugins.manager import Registration, get_manager, registered

__all__ = ["Registration", "get_manager", "hookimpl", "registered"]
