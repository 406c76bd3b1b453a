"""The rows from which a metric is computed; all front ends choose the same, so that their values agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

# Metrics that compare all pairs at once look at up to this many rows.
PAIRWISE_ROWS = 2_048
# Where rows arrive batch by batch, this many are kept for metrics that need the rows themselves.
KEPT_ROWS = 10_000

Kind = TypeVar("Kind")


def distinct_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the indices of the rows of ``x`` (N, D) that differ from all before, ascending, (U,).

    The second tensor, (N,), is the place of each row among them; 0.0 and -0.0 are equal. Neighbour metrics
    count each distinct row once. A row that stands twice has a neighbour at distance 0, and its neighbours
    come in pairs, whatever the dimension is.
    """
    distinct, groups = torch.unique(x.detach(), dim=0, return_inverse=True)
    first = groups.new_full((len(distinct),), len(x))
    first.scatter_reduce_(0, groups, torch.arange(len(x), device=x.device), "amin")
    order = first.argsort()
    return first[order], order.argsort()[groups]


def few_indices(count: int) -> Tensor:
    """Choose at most ``PAIRWISE_ROWS`` of ``count`` rows at random, always the same ones.

    The rows may be sorted by class, so the first ones would not do.
    """
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:PAIRWISE_ROWS]


def of_few(metric: Callable[..., Kind], *features: Tensor) -> Kind:
    """Compute a metric from at most ``PAIRWISE_ROWS`` rows of features (N, D).

    Several features must belong to the same samples. ``partial(of_few, metric)`` can be pickled.
    """
    if len(features[0]) > PAIRWISE_ROWS:
        few = few_indices(len(features[0]))
        features = tuple(each[few.to(each.device)] for each in features)
    return metric(*features)


def of_few_distinct(metric: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
    """Compute a metric of neighbours from at most ``PAIRWISE_ROWS`` distinct rows of features (N, D).

    The equal rows are left out before the choice. After it, fewer rows would remain, and most of them would
    be rows that are repeated often.
    """
    if len(features) > PAIRWISE_ROWS:
        features = features[distinct_rows(features)[0]]
    return of_few(metric, features)
