"""Read the weights of checkpoints without ever running code from them."""

from __future__ import annotations

import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar
from zipfile import is_zipfile

import torch

from solo_dimreg.errors import ConfigError
from solo_dimreg.files import checkpoint_epoch

T = TypeVar("T")

# The functions that rebuild tensors. All other objects, except dictionaries, become inert on loading.
REBUILT = {
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_tensor_v2"),
}
# solo-learn keeps the learning rate of SimSiam's and NNSiam's predictor constant with a function in the
# scheduler. It therefore saves scheduler and optimizer as objects.
LEFT_OUT = {
    ("functools", "partial"),
    ("builtins", "getattr"),
    ("builtins", "dict"),
    ("collections", "defaultdict"),
    ("collections", "Counter"),
}
LEFT_OUT_MODULES = ("solo.", "pl_bolts.", "torch.optim.")


class _Inert:
    """A placeholder for an unwanted object, which accepts every call and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...


class _Rebuild:
    """A wrapper around a function that rebuilds tensors, so that a checkpoint cannot change the function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a checkpoint must not change a function")


class _Unpickler(pickle.Unpickler):
    """An unpickler that loads tensors, leaves out solo-learn's objects and refuses all others."""

    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins"}.get(module, module)
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) in REBUILT:
            return _Rebuild(super().find_class(module, name))
        inert = (module, name) in LEFT_OUT or module.startswith(LEFT_OUT_MODULES)
        if inert and "." not in name:  # a dotted name can refer to another module
            return _Inert
        raise pickle.UnpicklingError(f"{module}.{name} is not loaded")


def read_weights(checkpoint: Path) -> dict[str, Any]:
    """Return the state dict in a checkpoint of solo-learn's.

    Raises:
        ConfigError: The file is damaged, or holds objects that solo-learn does not write.
    """
    return _read(checkpoint, lambda content: dict(content["state_dict"]))


def read_steps(checkpoint: Path) -> int:
    """Return how many optimizer steps the training had made when it wrote a checkpoint.

    Raises:
        ConfigError: As :func:`read_weights`.
    """
    return _read(checkpoint, lambda content: int(content["global_step"]))


def _read(checkpoint: Path, part: Callable[[Any], T]) -> T:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about another pickle protocol, in files that are refused anyway
            try:
                content = torch.load(checkpoint, map_location="cpu", weights_only=True)
            except pickle.UnpicklingError:
                if not is_zipfile(checkpoint):
                    raise
                reader = SimpleNamespace(Unpickler=_Unpickler, __name__="solo_dimreg")
                content = torch.load(checkpoint, map_location="cpu", weights_only=False, pickle_module=reader)
            return part(content)
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{checkpoint}: holds more than weights and settings, which could run code and is not loaded."
        ) from error
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")[:200]
        named = type(error).__name__ + (f": {reason}" if reason else "")
        raise ConfigError(f"{checkpoint}: is not an intact checkpoint ({named}).") from error


def check_resumable(checkpoint: Path) -> None:
    """Refuse a checkpoint that a trainer would have to unpickle as a whole.

    Raises:
        ConfigError: The file is damaged or holds objects, as SimSiam's and NNSiam's of older versions do.
    """
    read_weights(checkpoint)
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{checkpoint}: holds objects beside its weights, which could run code; it is not resumed."
        ) from error


def latest_resumable(checkpoints: Iterable[Path]) -> Path | None:
    """Return the latest checkpoint that can be resumed; print why each later one cannot."""
    for checkpoint in sorted(checkpoints, key=checkpoint_epoch, reverse=True):
        try:
            check_resumable(checkpoint)
            return checkpoint
        except ConfigError as error:
            print(f"Not resuming from {error}")
    return None
