"""Join a callback to the ``Callback`` of the Lightning in use, ``lightning`` or ``pytorch_lightning``."""

from __future__ import annotations

import functools
import importlib
import sys
from typing import Any

from solo_dimreg.errors import MissingPackageError

LIGHTNINGS = ("lightning.pytorch", "pytorch_lightning")


class JoinedCallback:
    """A class whose instances also derive from the ``Callback`` of each Lightning that is imported."""

    _public: type[JoinedCallback]

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """Create an instance of the joined class."""
        callbacks = _callbacks(cls.__name__)
        kind = cls if issubclass(cls, callbacks) else _join(cls, callbacks)  # type: ignore[arg-type]
        return object.__new__(kind)

    def __reduce__(self) -> Any:
        """Pickle by the public class: spawned processes cannot import the joined class by a name."""
        return self._public.__new__, (self._public,), vars(self)


def _callbacks(name: str) -> tuple[type, ...]:
    """Return the ``Callback`` of each Lightning that is imported, or of the first that can be imported."""
    loaded = [module for each in LIGHTNINGS if (module := sys.modules.get(each)) is not None]
    for each in () if loaded else LIGHTNINGS:
        try:
            loaded = [importlib.import_module(each)]
            break
        except ModuleNotFoundError as error:
            if error.name not in (each, each.partition(".")[0]):
                raise  # Lightning is installed, and something that it needs is not
    if not loaded:
        raise MissingPackageError(
            f"{name} needs Lightning: pip install 'solo-dimreg[lightning]'. In a training loop of your own, "
            "use DimensionalityTracker, which works without it."
        )
    return tuple(module.Callback for module in loaded)


@functools.cache
def _join(cls: type, callbacks: tuple[type, ...]) -> Any:
    content = {"__module__": cls.__module__, "__doc__": cls.__doc__, "_public": cls}
    return type(cls.__name__, (cls, *callbacks), content)
