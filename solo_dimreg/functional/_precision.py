"""Run a function in float32 at least, whatever autocast says."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from solo_dimreg.errors import warn

P = ParamSpec("P")
R = TypeVar("R")


# Since PyTorch 2.9 these objects hold the precision of float32 products.
_ENTRIES: list[Any] = [
    entry
    for backend in (torch.backends.cuda, torch.backends.mkldnn)
    if hasattr(entry := getattr(backend, "matmul", None), "fp32_precision")
]
# Kinds of devices without float64, in which spectra, moments and lengths are computed.
WITHOUT_FLOAT64 = {"mps"}


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate ``function`` to compute in the widest dtype of its floating inputs, float32 at least.

    It finds tensors among the arguments and inside lists and tuples. Half and bfloat16 are promoted,
    float64 is kept, integers are left alone, and autocast is off for the device of the first tensor.

    On a device without float64 a function is computed on the CPU, and its result comes back to the device; a
    warning says so once. A module stays on its device, and the functions that it calls move their inputs.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        tensors = list(_tensors([*args, *kwargs.values()]))
        if not tensors:
            return function(*args, **kwargs)
        dtype = torch.float32
        for tensor in tensors:
            if tensor.is_floating_point():
                dtype = torch.promote_types(dtype, tensor.dtype)
        home = tensors[0].device
        away = home.type in WITHOUT_FLOAT64 and not isinstance(args[0] if args else None, nn.Module)

        def promoted(x: Tensor) -> Tensor:
            x = with_float64(x) if away else x
            return x.to(dtype) if x.is_floating_point() else x

        def returned(x: Tensor) -> Tensor:
            return (x.float() if x.dtype == torch.float64 else x).to(home)

        with no_autocast("cpu" if away else home.type):
            named = {name: _each(promoted, value) for name, value in kwargs.items()}
            result = function(*[_each(promoted, value) for value in args], **named)  # type: ignore[arg-type]
            return _each(returned, result) if away else result

    return wrapper


def with_float64(x: Tensor) -> Tensor:
    """Return ``x``, moved to the CPU if its device has no float64; a warning says so once."""
    if x.device.type not in WITHOUT_FLOAT64:
        return x
    if not torch.compiler.is_compiling():
        _warn_once(x.device.type)
    return x.cpu()


@functools.cache
def _warn_once(kind: str) -> None:
    warn(f"{kind} has no float64: solo-dimreg moves its tensors to the CPU and computes there.")


def no_autocast(device_type: str) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which autocast is off on ``device_type``."""
    try:
        if not torch.is_autocast_enabled(device_type):
            return contextlib.nullcontext()
        return torch.autocast(device_type, enabled=False)
    except RuntimeError:  # a device that has no autocast has none to switch off
        return contextlib.nullcontext()


def full_products() -> contextlib.AbstractContextManager[None]:
    """Return a context in which float32 matrix products are in float32, not in TensorFloat32 or bfloat16.

    PyTorch has two interfaces to the precision since 2.9: ``torch.set_float32_matmul_precision``, and
    ``fp32_precision`` of ``torch.backends.cuda.matmul`` and ``torch.backends.mkldnn.matmul``. PyTorch raises
    as soon as they disagree. The older call sets both alike, and both are put back as they were.
    """
    # They are, usually. A change takes the time of a small product.
    return contextlib.nullcontext() if _are_full() else _change_to_full()


@contextlib.contextmanager
def _change_to_full() -> Iterator[None]:
    before = [_full(entry) for entry in _ENTRIES]
    # It can be read only now: until here an entry that the user has set may have contradicted it.
    overall = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(overall)
        for entry, precision in zip(_ENTRIES, before, strict=True):
            entry.fp32_precision = precision


def _are_full() -> bool:
    """Return whether products are in float32 anyway."""
    try:
        if torch.get_float32_matmul_precision() != "highest":
            return False
        return all(entry.fp32_precision in ("none", "ieee") for entry in _ENTRIES)
    except RuntimeError:  # an entry contradicts it
        return False


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a @ b`` of (stacks of) matrices without TensorFloat32, as are the products of its gradient."""
    # A custom gradient takes longer than a small product, and is not made where none can be asked for.
    use_custom = torch.is_grad_enabled() or torch.compiler.is_compiling()
    return _Matmul.apply(a, b) if use_custom else _matmul(a, b)


class _Matmul(torch.autograd.Function):
    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        return _matmul_operator(a, b) if torch.compiler.is_compiling() else _matmul(a, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        with no_autocast(grad.device.type):
            return (
                _matmul_like(a, grad, b.mT) if ctx.needs_input_grad[0] else None,
                _matmul_like(b, a.mT, grad) if ctx.needs_input_grad[1] else None,
            )


def _matmul_like(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return ``a @ b`` by columns if ``x`` is stored so: passes over two tensors stored unlike are slow."""
    return matmul(b.mT, a.mT).mT if x.stride(-2) == 1 else matmul(a, b)


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype == torch.float64:
        return a @ b
    with full_products():
        return a @ b


# torch.compile does not trace a change of the precision.
_matmul_operator = torch.library.custom_op("solo_dimreg::matmul", _matmul, mutates_args=())


@_matmul_operator.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return a @ b


def _full(entry: Any) -> str:
    """Set an entry to float32 and return its former value, or "none" if it had none of its own."""
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


def _each(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Return ``value`` with its tensors changed, also those inside lists and tuples."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list):
        return [_each(change, item) for item in value]
    if isinstance(value, tuple):
        changed = [_each(change, item) for item in value]
        return type(value)(*changed) if hasattr(value, "_fields") else type(value)(changed)  # NamedTuple
    return value
