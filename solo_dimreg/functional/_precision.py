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


@contextlib.contextmanager
def full_products() -> Iterator[None]:
    """Compute matrix products of float32 in float32 within, not in TensorFloat32 or bfloat16.

    From PyTorch 2.9 on the precision has two interfaces: ``torch.set_float32_matmul_precision`` and
    ``fp32_precision`` of ``torch.backends.cuda.matmul`` and ``torch.backends.mkldnn.matmul``. PyTorch raises
    as soon as they disagree. The older call sets both alike, and both are put back as they were.
    """
    kinds = (getattr(backend, "matmul", None) for backend in (torch.backends.cuda, torch.backends.mkldnn))
    entries = [entry for entry in kinds if hasattr(entry, "fp32_precision")]
    before = [_full(entry) for entry in entries]
    # Readable only now, with entries that do not contradict it, whichever of the two the user has set.
    overall = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(overall)
        for entry, precision in zip(entries, before, strict=True):
            entry.fp32_precision = precision


def _full(entry: Any) -> str:
    """Set an entry to float32 and return what puts it back: its own value, or that it takes a general one."""
    before = entry.fp32_precision
    entry.fp32_precision = "none"
    inherited = entry.fp32_precision == before
    entry.fp32_precision = "ieee"
    return "none" if inherited else before


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
