"""Runs a function in float32 at least, whatever autocast says."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates ``function`` to compute in the widest dtype of its floating inputs, float32 at least.

    Tensors are looked for among the arguments and inside lists and tuples. Half and bfloat16 are promoted,
    float64 is kept, integers are left alone, and autocast is off for the device of the first tensor.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        tensors = list(_tensors([*args, *kwargs.values()]))
        dtype = torch.float32
        for tensor in tensors:
            if tensor.is_floating_point():
                dtype = torch.promote_types(dtype, tensor.dtype)
        with no_autocast(tensors[0].device.type) if tensors else contextlib.nullcontext():
            promoted = {name: _cast(value, dtype) for name, value in kwargs.items()}
            return function(*(_cast(value, dtype) for value in args), **promoted)  # type: ignore[arg-type]

    return wrapper


def no_autocast(device_type: str) -> contextlib.AbstractContextManager[Any]:
    """A context without autocast on ``device_type``."""
    try:
        return torch.autocast(device_type, enabled=False)
    except RuntimeError:  # a device that has no autocast has none to switch off
        return contextlib.nullcontext()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, (list, tuple)):
        return [_cast(item, dtype) for item in value]
    return value
