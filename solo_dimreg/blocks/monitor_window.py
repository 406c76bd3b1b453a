"""What the monitor looks at, and what it measures of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from solo_dimreg.distributed import all_gather, world_size
from solo_dimreg.functional import matrix_mutual_information
from solo_dimreg.plugins import registered

# Figures of features and embeddings together; the registered metrics look at one of them at a time.
PAIR_METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mutual_information": matrix_mutual_information
}


class Window:
    """The last rows that a module put out, at most ``size`` of them, of the first call in each step."""

    def __init__(self, module: nn.Module, size: int) -> None:
        self.size = size
        self.rows: list[Tensor] = []
        self.open = False
        self._handle = module.register_forward_hook(self._see)

    def _see(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if not self.open:
            return
        self.open = False  # the other crops are other views of the same images
        self.rows.append((output[0] if isinstance(output, tuple) else output).detach())
        while sum(map(len, self.rows[1:])) >= self.size:
            self.rows.pop(0)

    def take(self) -> Tensor | None:
        """The rows of all processes, (N, D); the window is empty afterwards."""
        if not self.rows:
            return None
        rows = torch.cat(self.rows)[-max(1, self.size // world_size()) :]
        self.rows = []
        return all_gather(rows.float().contiguous())

    def remove(self) -> None:
        """Leaves the module as it was."""
        self._handle.remove()


def measure(metrics: list[str], features: Tensor, embeddings: Tensor | None) -> dict[str, float]:
    """Every metric of the features and, with the prefix ``z_``, of the embeddings."""
    known = registered("metrics")
    found: dict[str, float] = {}
    for name in metrics:
        if name in PAIR_METRICS:
            if embeddings is not None:
                found[name] = _value(name, PAIR_METRICS[name], features, embeddings)
            continue
        found[name] = _value(name, known[name].value, features)
        if embeddings is not None:
            found[f"z_{name}"] = _value(name, known[name].value, embeddings)
    return found


@torch.no_grad()
def _value(name: str, metric: Callable[..., Tensor], *inputs: Tensor) -> float:
    """A plugin's metric that fails must not end a training of days."""
    try:
        return float(metric(*inputs))
    except Exception as error:
        warnings.warn(f"monitor.metrics: {name} failed ({type(error).__name__}: {error}).", stacklevel=2)
        return torch.nan
