"""Find modules of a user's own model by name, and read their outputs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from solo_dimreg.errors import ConfigError, nearest

# Class and register tokens are at most this many.
MAX_EXTRA_TOKENS = 8


def find_module(option: str, model: nn.Module, name: str, backbone: str = "") -> nn.Module:
    """Return the part of a model that a user names, as in ``backbone`` or ``net.encoder``.

    In a compiled module, a part is named without the ``_orig_mod`` that ``torch.compile`` inserts.
    With ``backbone``, what the model calls its backbone, ``backbone.layer3`` finds ``{backbone}.layer3``, or
    ``{backbone}.model.layer3`` of a backbone from timm. An unknown name raises a ConfigError.
    """
    names = {known.replace("_orig_mod.", ""): module for known, module in model.named_modules() if known}
    names |= {known: module for known, module in model.named_modules() if known}
    children = [known for known, _ in model.named_children()]
    own = names
    if backbone:
        children = ["backbone" if known == backbone else known for known in children]
        names = {
            re.sub(rf"^{re.escape(backbone)}(?=\.|$)", "backbone", known): names[known] for known in names
        }
        inner = "backbone.model."
        names = {known.replace(inner, "backbone."): names[known] for known in names if inner in known} | names
    if name not in names and name not in own:
        raise ConfigError(
            f"{option}: {name!r} is not a module of {type(model).__name__}.{nearest(name, names)} "
            f"Its modules: {', '.join(children) or 'none'}; parts of them are named as in 'backbone.layer4'."
        )
    return (own | names)[name]


def rows_of(option: str, output: Any) -> Tensor:
    """Return a module's output as detached rows, one per sample, (B, D); the first output of a tuple.

    Raises:
        ConfigError: The output has another type or shape.
    """
    if isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor) or not output.is_floating_point():
        what = str(output.dtype) if isinstance(output, Tensor) else type(output).__name__
        raise ConfigError(f"{option}: returns {what}; features must be a tensor of floating-point numbers.")
    # torchvision's networks pool to a single pixel.
    rows = output.flatten(1) if output.dim() > 2 and output.shape[2:].numel() == 1 else output
    if rows.dim() != 2 or not rows.shape[1]:
        raise ConfigError(
            f"{option}: returns shape {tuple(output.shape)}; features must be (samples, dimensions): "
            "name a module that pools them."
        )
    return rows.detach()


def positions_of(output: Any) -> Tensor | None:
    """Return a module's output as detached vectors at N positions of each sample, (B, N, D).

    Rows (B, D) have one position. A map (B, D, H, W) has H W positions, and (B, H, W, D) too if only its
    first two sides are equal. Of tokens (B, N, D), those in front of a square grid, such as a class token,
    are left out. It is None for another output.
    """
    if isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor) or not output.is_floating_point() or 0 in output.shape:
        return None
    x = output.detach()
    if x.dim() == 4:
        channels_last = x.shape[1] == x.shape[2] != x.shape[3]
        return x.flatten(1, 2) if channels_last else x.flatten(2).mT
    if x.dim() == 3:
        extra = x.shape[1] - int(x.shape[1] ** 0.5) ** 2  # math.isqrt breaks a compiled graph
        return x[:, extra:] if extra <= MAX_EXTRA_TOKENS else x
    return x[:, None] if x.dim() == 2 else None


def pooled_rows(option: str, output: Any) -> Tensor:
    """Return the means of a module's output over its positions, (B, D).

    Raises:
        ConfigError: The output is no rows, map or tokens.
    """
    positions = positions_of(output)
    return rows_of(option, output) if positions is None else positions.mean(dim=1)


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and leave each of its parts in the mode that it had."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


class OutputRecorder:
    """A hook that passes each output of a module, as rows, to a function, until it is removed.

    ``torch.compile`` traces a hook once, but the function changes its effect from call to call. The function
    is therefore behind an operator that the compiler does not look into. One compiled graph serves all steps,
    whether their outputs are wanted or not, and ``fullgraph=True`` holds.

    Args:
        option: The name of the option in error messages.
        module: The module. If it is compiled, it must not have been called yet.
        record: Called with the rows (B, D), detached. It has to copy what it keeps, because an operation in
            place may be next, such as ``ReLU(inplace=True)``.
        rows: Makes the rows from the option and an output.
    """

    def __init__(
        self,
        option: str,
        module: nn.Module,
        record: Callable[[Tensor], Any],
        rows: Callable[[str, Any], Tensor] = rows_of,
    ) -> None:
        self.record, self._rows = record, rows
        self._option = option
        self._number = next(_numbers)
        self._calls = torch.zeros((), dtype=torch.int64)
        _recorders[self._number] = self
        self._handle = module.register_forward_hook(self._hook)

    def _hook(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        rows = self._rows(self._option, output)
        if torch.compiler.is_compiling():
            torch.ops.solo_dimreg.record(rows, self._calls, self._number)
        else:
            self.record(rows)

    def remove(self) -> None:
        """Remove the hook from the module."""
        self._handle.remove()


_numbers = itertools.count()
# The compiled code of a module whose hook was removed may still run: it finds nothing here.
_recorders: WeakValueDictionary[int, OutputRecorder] = WeakValueDictionary()


def _record(rows: Tensor, calls: Tensor, recorder: int) -> None:
    calls += 1
    if (found := _recorders.get(recorder)) is not None:
        found.record(rows)


# The operator changes ``calls``, so that compilers do not remove it. CUDA graphs replay the kernels of a step
# without its Python code; the tag tells them to leave the operator out.
torch.library.define(
    "solo_dimreg::record",
    "(Tensor rows, Tensor(a!) calls, int recorder) -> ()",
    tags=[tag] if (tag := getattr(torch.Tag, "cudagraph_unsafe", None)) is not None else [],
)
torch.library.impl("solo_dimreg::record", "default")(_record)
torch.library.register_fake("solo_dimreg::record")(lambda rows, calls, recorder: None)
