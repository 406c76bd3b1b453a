"""Reads the weights of checkpoints without ever running what is in them."""

from __future__ import annotations

import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import is_zipfile

import torch

from solo_dimreg.errors import ConfigError
from solo_dimreg.files import checkpoint_epoch

# What rebuilds tensors; besides dictionaries everything else that is read becomes an inert object.
REBUILT = {
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_tensor_v2"),
}
# solo-learn keeps the predictor's learning rate of SimSiam and NNSiam fixed with a function that it puts into
# the scheduler, and so saves scheduler and optimizer as objects.
LEFT_OUT = {
    ("functools", "partial"),
    ("builtins", "getattr"),
    ("builtins", "dict"),
    ("collections", "defaultdict"),
    ("collections", "Counter"),
}
LEFT_OUT_MODULES = ("solo.", "pl_bolts.", "torch.optim.")


class _Inert:
    """In place of an object that is not wanted: takes everything and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...


class _Rebuild:
    """A function that rebuilds tensors; unlike the function itself it cannot be changed by what is read."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a function is not changed")


class _Unpickler(pickle.Unpickler):
    """Unpickles tensors; of solo-learn's other objects only their places, and of others nothing."""

    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins"}.get(module, module)
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) in REBUILT:
            return _Rebuild(super().find_class(module, name))
        inert = (module, name) in LEFT_OUT or module.startswith(LEFT_OUT_MODULES)
        if inert and "." not in name:  # a dotted name can lead out of the module
            return _Inert
        raise pickle.UnpicklingError(f"{module}.{name} is not loaded")


def read_weights(checkpoint: Path) -> dict[str, Any]:
    """The state dict in a checkpoint of solo-learn's.

    Raises:
        ConfigError: it is damaged, or holds more than weights, settings and what solo-learn puts there.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of another pickle protocol, in files that are refused anyway
            try:
                content = torch.load(checkpoint, map_location="cpu", weights_only=True)
            except pickle.UnpicklingError:
                if not is_zipfile(checkpoint):
                    raise
                reader = SimpleNamespace(Unpickler=_Unpickler, __name__="solo_dimreg")
                content = torch.load(checkpoint, map_location="cpu", weights_only=False, pickle_module=reader)
            return dict(content["state_dict"])
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{checkpoint}: holds more than weights and settings, which could run code and is not loaded."
        ) from error
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")[:200]
        named = type(error).__name__ + (f": {reason}" if reason else "")
        raise ConfigError(f"{checkpoint}: is no intact checkpoint ({named}).") from error


def check_resumable(checkpoint: Path) -> None:
    """Refuses a checkpoint that a trainer would have to unpickle as a whole.

    Raises:
        ConfigError: it is damaged, or holds objects; so do those of SimSiam and NNSiam of older versions.
    """
    read_weights(checkpoint)
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{checkpoint}: holds objects beside its weights, which could run code; it is not resumed."
        ) from error


def latest_resumable(checkpoints: Iterable[Path]) -> Path | None:
    """The one of the latest epoch that can be resumed; says of those after it why they cannot."""
    for checkpoint in sorted(checkpoints, key=checkpoint_epoch, reverse=True):
        try:
            check_resumable(checkpoint)
            return checkpoint
        except ConfigError as error:
            print(f"Not resuming from {error}")
    return None
