"""Random directions that all processes share, and that a resumed run goes on with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RandomSlices(nn.Module):
    """Unit vectors drawn anew at every training step: the step is the seed.

    So they are the same on all processes, and the random state of the training stays as it is.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        # On the CPU, so that no device is waited for: state, though no buffer, which would follow the module.
        self._step = torch.zeros((), dtype=torch.long)

    def forward(self, x: Tensor) -> Tensor:
        """As columns, shape (D, count), for embeddings (B, D); in evaluation those of the coming step."""
        slices = unit_slices(x.detach(), self._step, self.count)
        if self.training:
            self._step += 1
        return slices

    def extra_repr(self) -> str:
        """The number, for printing."""
        return f"{self.count}"

    def get_extra_state(self) -> Tensor:
        """The number of training steps, which is the next seed."""
        return self._step.clone()

    def set_extra_state(self, state: Tensor) -> None:
        """Goes on from there."""
        self._step.copy_(state)


@torch.library.custom_op("solo_dimreg::unit_slices", mutates_args=())
def unit_slices(x: Tensor, seed: Tensor, count: int) -> Tensor:
    """``count`` uniform directions in the space of ``x`` (B, D), as columns, shape (D, count).

    An operator of its own, since ``torch.compile`` knows no generators.
    """
    generator = torch.Generator(device=x.device).manual_seed(int(seed))
    normal = torch.randn(x.shape[1], count, generator=generator, device=x.device)
    return F.normalize(normal.to(x.dtype), dim=0)


@unit_slices.register_fake
def _(x: Tensor, seed: Tensor, count: int) -> Tensor:
    return x.new_empty(x.shape[1], count)
