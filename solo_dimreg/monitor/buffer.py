"""Keep the rows that the monitor looks at, and measure their metrics."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from solo_dimreg.distributed import all_gather, world_size
from solo_dimreg.metrics.registry import FEATURES_AND_EMBEDDINGS, VIEWS
from solo_dimreg.plugins import monitored_metrics


class FeatureBuffer:
    """The last rows of a module's first calls in each step, at most ``size`` of them.

    Args:
        size: The number of images, over all processes.
        views: 1, or 2 if metrics of two views are wanted.

    Attributes:
        steps_of_epoch: The largest number of steps that are kept, so that no image is there twice.
        opened: Whether there has been any step.
    """

    def __init__(self, size: int, views: int = 1) -> None:
        self.size, self.views, self.steps_of_epoch = size, views, 2**62
        self.steps: list[list[Tensor]] = []
        self.wanted = 0  # the number of calls still to keep in this step
        self.opened = False

    def open_step(self) -> None:
        """Begin a step, whose first calls are kept."""
        self.opened, self.wanted = True, self.views

    def close_step(self) -> None:
        """End a step; further calls are not kept."""
        self.wanted = 0

    def add(self, rows: Tensor) -> None:
        """Keep a copy of the rows (B, D) of a call, if it is one of the first in its step."""
        if not self.wanted:
            return
        if self.wanted == self.views:
            self.steps.append([])
        self.wanted -= 1  # further crops are further views of the same images
        self.steps[-1].append(rows.detach().clone())
        while (
            len(self.steps) > self.steps_of_epoch or sum(len(step[0]) for step in self.steps[1:]) >= self.size
        ):
            self.steps.pop(0)

    def rows(self) -> list[Tensor]:
        """Return for each view the rows of all processes, (N, D), with one row per image in the same order.

        The second view is missing if a step had none, or had another number of rows.
        """
        equal = all(len({len(rows) for rows in step}) == 1 for step in self.steps)
        views = min(map(len, self.steps), default=0) if equal else min(1, len(self.steps))
        kept = max(1, self.size // world_size())
        taken = [torch.cat([step[view] for step in self.steps])[-kept:] for view in range(views)]
        return [all_gather(rows.float().contiguous()) for rows in taken]


def measure(
    metrics: Sequence[str], features: list[Tensor], embeddings: Sequence[Tensor] = ()
) -> dict[str, float]:
    """Return the metrics of the features (N, D) of each view and, with ``z_``, of the embeddings (N, d).

    A metric that needs embeddings or a second view is left out if there is none.
    """
    known = monitored_metrics()
    found: dict[str, float] = {}
    for name in metrics:
        record = known[name]
        assert record.function is not None
        if record.inputs == FEATURES_AND_EMBEDDINGS:
            if embeddings:
                found[name] = _value(name, record.function, features[0], embeddings[0])
            continue
        needed = 2 if record.inputs == VIEWS else 1
        for prefix, views in (("", features), ("z_", embeddings)):
            if len(views) >= needed:
                found[prefix + name] = _value(name, record.function, *views[:needed])
    return found


@torch.no_grad()
def _value(name: str, metric: Callable[..., Tensor], *inputs: Tensor) -> float:
    """Return a metric's value, or NaN with a warning if it fails: no plugin may end a training of days."""
    try:
        return float(metric(*inputs))
    except Exception as error:
        warnings.warn(f"monitor.metrics: {name} failed ({type(error).__name__}: {error}).", stacklevel=2)
        return torch.nan
