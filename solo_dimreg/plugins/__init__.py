"""The pluggy layer: hook specifications, the manager, and the built-in plugins.

A plugin is a module or an object with functions marked ``@hookimpl``. Its package names it in the entry-point
group ``solo_dimreg``.
"""

from solo_dimreg.plugins.hookspecs import hookimpl
from solo_dimreg.plugins.manager import Registration, get_manager, monitored_metrics, registered

__all__ = ["Registration", "get_manager", "hookimpl", "monitored_metrics", "registered"]
