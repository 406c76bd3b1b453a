"""Random directions that all processes share, and that a resumed run continues."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RandomSlices(nn.Module):
    """A module that draws random unit vectors anew at every training step, with the step as the seed.

    All processes draw the same vectors, and the random state of the training does not change.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        # On the CPU, so that no device is waited for. A buffer would follow the module; this is extra state.
        self._step = torch.zeros((), dtype=torch.long)

    def forward(self, x: Tensor) -> Tensor:
        """Return unit vectors as columns, shape (D, count), for embeddings (B, D).

        In evaluation these are the vectors of the next training step, and the step does not advance.
        """
        slices = unit_slices(x.detach(), self._step, self.count)
        if self.training:
            self._step += 1
        return slices

    def extra_repr(self) -> str:
        """Return the number of vectors, for printing."""
        return f"{self.count}"

    def get_extra_state(self) -> Tensor:
        """Return the number of training steps, which is the next seed."""
        return self._step.clone()

    def set_extra_state(self, state: Tensor) -> None:
        """Continue from the saved number of training steps."""
        self._step.copy_(state)


@torch.library.custom_op("solo_dimreg::unit_slices", mutates_args=())
def unit_slices(x: Tensor, seed: Tensor, count: int) -> Tensor:
    """Return ``count`` uniform directions in the space of ``x`` (B, D), as columns, shape (D, count).

    It is a custom operator, since ``torch.compile`` cannot trace generators.
    """
    generator = torch.Generator(device=x.device).manual_seed(int(seed))
    normal = torch.randn(x.shape[1], count, generator=generator, device=x.device)
    return F.normalize(normal.to(x.dtype), dim=0)


@unit_slices.register_fake
def _(x: Tensor, seed: Tensor, count: int) -> Tensor:
    return x.new_empty(x.shape[1], count)
