"""Turn a ``regularizers:`` block, ``{ldreg: {weight: 0.005, k: 64}}``, into weighted terms of a loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from solo_dimreg.config.blocks import RegularizerSettings


class Term(nn.Module):
    """A regularizer with its weight, its warm-up epochs and its input."""

    def __init__(self, settings: RegularizerSettings) -> None:
        super().__init__()
        self.where = settings.where
        self.regularizer = settings.kind(**settings.options)
        self.weight = settings.weight
        self.warmup_epochs: float = settings.warmup_epochs

    def active(self, epoch: int) -> bool:
        """Return whether the term takes part in the epoch, counted from 0."""
        return self.weight > 0 and epoch >= self.warmup_epochs

    def forward(self, views: Sequence[Tensor], momentum_views: Sequence[Tensor] = ()) -> Tensor:
        """Return the unweighted value of the regularizer, a scalar."""
        return self.regularizer(views, momentum_views)


def build_terms(
    settings: Mapping[str, RegularizerSettings], remedy: Mapping[str, RegularizerSettings]
) -> dict[str, Term]:
    """Return the terms that a ``regularizers:`` block asks for, and those that wait for the alarm, by name.

    A remedy is built at the start, so that its parameters and buffers are in the optimizer and in every
    checkpoint. The random state is restored: a method starts from the same weights with and without terms.
    """
    with torch.random.fork_rng(devices=[]):
        terms = {name: Term(each) for name, each in {**settings, **remedy}.items()}
    for name in remedy:
        terms[name].warmup_epochs = math.inf
    return terms
