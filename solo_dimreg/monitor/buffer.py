"""Keep the rows that the monitor looks at, and measure their metrics."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from solo_dimreg.distributed import all_gather, world_size
from solo_dimreg.functional import alignment, lidar, matrix_mutual_information
from solo_dimreg.functional._rows import of_few
from solo_dimreg.plugins import registered

# Metrics of features and embeddings together; the registered metrics look at one of them at a time.
PAIR_METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mutual_information": partial(of_few, matrix_mutual_information)
}
# Metrics of two views of the same images, of features or embeddings.
VIEW_METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "alignment": alignment,
    "lidar": lambda first, second: lidar(torch.stack([first, second], dim=1).flatten(0, 1), 2),
}


class Window:
    """A buffer for the last rows of a module's first calls in each step, at most ``size`` of them.

    Args:
        size: The number of images, over all processes.
        views: 1, or 2 if metrics of two views are wanted.

    Attributes:
        most: The largest number of steps, that of an epoch, so that no image is there twice.
        opened: Whether there has been any step.
    """

    def __init__(self, size: int, views: int = 1) -> None:
        self.size, self.views, self.most = size, views, 2**62
        self.steps: list[list[Tensor]] = []
        self.wanted = 0  # the number of calls still to look at in this step
        self.opened = False

    def look(self, open_: bool) -> None:
        """Begin a step, or end it."""
        self.opened = self.opened or open_
        self.wanted = self.views if open_ else 0

    def see(self, rows: Tensor) -> None:
        """Keep a copy of the rows (B, D) of a call, if it is one of the first in its step."""
        if not self.wanted:
            return
        if self.wanted == self.views:
            self.steps.append([])
        self.wanted -= 1  # further crops are further views of the same images
        self.steps[-1].append(rows.detach().clone())
        while len(self.steps) > self.most or sum(len(step[0]) for step in self.steps[1:]) >= self.size:
            self.steps.pop(0)

    def rows(self) -> list[Tensor]:
        """Return for each view the rows of all processes, (N, D), with one row per image in the same order.

        The second view is missing if a step had none, or had another number of rows.
        """
        whole = all(len({len(rows) for rows in step}) == 1 for step in self.steps)
        views = min(map(len, self.steps), default=0) if whole else min(1, len(self.steps))
        kept = max(1, self.size // world_size())
        taken = [torch.cat([step[view] for step in self.steps])[-kept:] for view in range(views)]
        return [all_gather(rows.float().contiguous()) for rows in taken]


def measure(
    metrics: list[str], features: list[Tensor], embeddings: list[Tensor] | tuple[()] = ()
) -> dict[str, float]:
    """Return every metric of the features and, with the prefix ``z_``, of the embeddings.

    Args:
        metrics: The names. A metric that needs embeddings or a second view is left out if there is none.
        features: The features of each view, (N, D).
        embeddings: The embeddings of each view, (N, d).
    """
    known = registered("metrics")
    found: dict[str, float] = {}
    for name in metrics:
        if name in PAIR_METRICS:
            if embeddings:
                found[name] = _value(name, PAIR_METRICS[name], features[0], embeddings[0])
            continue
        for prefix, views in (("", features), ("z_", embeddings)):
            if name in VIEW_METRICS and len(views) > 1:
                found[prefix + name] = _value(name, VIEW_METRICS[name], *views)
            elif name not in VIEW_METRICS and views:
                found[prefix + name] = _value(name, known[name].value, views[0])
    return found


@torch.no_grad()
def _value(name: str, metric: Callable[..., Tensor], *inputs: Tensor) -> float:
    """Return a metric's value, or NaN with a warning if it fails: no plugin may end a training of days."""
    try:
        return float(metric(*inputs))
    except Exception as error:
        warnings.warn(f"monitor.metrics: {name} failed ({type(error).__name__}: {error}).", stacklevel=2)
        return torch.nan
