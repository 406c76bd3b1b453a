"""Modules of a user's own model, by name, and what they put out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from solo_dimreg.errors import ConfigError, nearest


def find_module(option: str, model: nn.Module, name: str) -> nn.Module:
    """The part of a model that a user names, as in ``backbone`` or ``net.encoder``.

    Raises:
        ConfigError: there is none of this name.
    """
    names = {known: module for known, module in model.named_modules() if known}
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


class Tap(nn.Module):
    """Sees, as rows, whatever a module puts out, until it is removed.

    Args:
        option: What errors call it.
        module: The module.
        see: Called with the rows (B, D).
    """

    def __init__(self, option: str, module: nn.Module, see: Callable[[Tensor], Any] | None = None) -> None:
        super().__init__()
        self.see = see
        self._option = option
        self._handle = module.register_forward_hook(self._hook)

    def _hook(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        self(rows_of(self._option, output))

    def forward(self, rows: Tensor) -> Tensor:
        """The rows themselves, for those who look at this module in place of the other."""
        if self.see is not None:
            self.see(rows)
        return rows

    def remove(self) -> None:
        """Leaves the module as it was."""
        self._handle.remove()
