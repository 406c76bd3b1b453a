"""Modules of a user's own model, by name, and what they put out."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from solo_dimreg.errors import ConfigError, nearest


def find_module(option: str, model: nn.Module, name: str) -> nn.Module:
    """Return the part of a model that a user names, as in ``backbone`` or ``net.encoder``.

    A part of a compiled module has its name without the ``_orig_mod`` that ``torch.compile`` puts into it.

    Raises:
        ConfigError: there is none of this name.
    """
    names = {known.replace("_orig_mod.", ""): module for known, module in model.named_modules() if known}
    names |= {known: module for known, module in model.named_modules() if known}
    if name not in names:
        children = ", ".join(known for known, _ in model.named_children()) or "none"
        raise ConfigError(
            f"{option}: {name!r} is no module of {type(model).__name__}.{nearest(name, names)} "
            f"Its modules: {children}; parts of them are named as in 'backbone.layer4'."
        )
    return names[name]


def rows_of(option: str, output: Any) -> Tensor:
    """What a module puts out, a row a sample, (B, D), detached; of a tuple the first.

    Raises:
        ConfigError: it is nothing of this kind.
    """
    if isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor) or not output.is_floating_point():
        what = str(output.dtype) if isinstance(output, Tensor) else type(output).__name__
        raise ConfigError(f"{option}: puts out {what}; features are a tensor of floating-point numbers.")
    # Pooled to a single pixel, as torchvision's networks do.
    rows = output.flatten(1) if output.dim() > 2 and output.shape[2:].numel() == 1 else output
    if rows.dim() != 2 or not rows.shape[1]:
        raise ConfigError(
            f"{option}: puts out shape {tuple(output.shape)}; features are (samples, dimensions): name a "
            "module that pools them."
        )
    return rows.detach()


class Tap:
    """Hands each output of a module, as rows, to a function, until it is removed.

    A step that ``torch.compile`` has compiled traces the hook once and for all: what the function does, which
    changes from call to call, is then behind an operator that the compiler does not look into. There is one
    graph for the steps whose outputs are wanted and for the others, and ``fullgraph=True`` holds.

    Args:
        option: What errors call it.
        module: The module; not yet called, if it is compiled.
        see: Called with the rows (B, D), detached. It has to copy what it keeps: an operation in place, such
            as ``ReLU(inplace=True)``, may be next.
    """

    def __init__(self, option: str, module: nn.Module, see: Callable[[Tensor], Any]) -> None:
        self.see = see
        self._option = option
        self._number = next(_numbers)
        self._calls = torch.zeros((), dtype=torch.int64)
        _taps[self._number] = self
        self._handle = module.register_forward_hook(self._hook)

    def _hook(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        rows = rows_of(self._option, output)
        if torch.compiler.is_compiling():
            torch.ops.solo_dimreg.see(rows, self._calls, self._number)
        else:
            self.see(rows)

    def remove(self) -> None:
        """Leaves the module as it was."""
        self._handle.remove()


_numbers = itertools.count()
# The compiled code of a module that is not tapped any more may still be there: it finds nothing here.
_taps: WeakValueDictionary[int, Tap] = WeakValueDictionary()


def _see(rows: Tensor, calls: Tensor, tap: int) -> None:
    calls += 1
    if (found := _taps.get(tap)) is not None:
        found.see(rows)


# That it changes ``calls`` keeps compilers from leaving it out; CUDA graphs, which replay the kernels of a
# step without its Python code, are to leave it out of what they replay.
torch.library.define(
    "solo_dimreg::see",
    "(Tensor rows, Tensor(a!) calls, int tap) -> ()",
    tags=[tag] if (tag := getattr(torch.Tag, "cudagraph_unsafe", None)) is not None else [],
)
torch.library.impl("solo_dimreg::see", "default")(_see)
torch.library.register_fake("solo_dimreg::see")(lambda rows, calls, tap: None)
