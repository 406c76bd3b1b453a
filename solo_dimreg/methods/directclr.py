"""DirectCLR as a method of solo-learn, and the alternatives that its paper compares with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from solo_dimreg.distributed import all_gather, broadcast
from solo_dimreg.errors import ConfigError, unknown
from solo_dimreg.functional import info_nce_loss
from solo_dimreg.functional._checks import check_int, check_positive

MODES = ("directclr", "baseline", "single", "simclr", "group")


class FirstEntries(nn.Module):
    """A layer that keeps the first ``dim`` entries of the features."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, features: Tensor) -> Tensor:
        """Return the first entries, (B, dim), of the features (B, D)."""
        return features[:, : self.dim]


def make_directclr(base: type) -> type:
    """Return DirectCLR as a subclass of ``base``, the ``Method`` of the host."""

    class DirectCLR(base):  # type: ignore[misc, valid-type]
        """Implements DirectCLR (Jing et al., ICLR 2022, https://arxiv.org/abs/2110.09348).

        Extra cfg settings:
            method_kwargs:
                mode (str): the input of InfoNCE (section 6 and Table 1 of the paper). ``directclr``: the
                    first ``dim`` entries of the features. ``baseline``: all features. ``single``: the output
                    of a linear projector. ``simclr``: the output of a two-layer nonlinear projector.
                    ``group``: random groups of entries, drawn anew at every step, with their losses summed.
                    Defaults to ``directclr``.
                dim (int): number of leading entries that ``directclr`` trains. Defaults to 360.
                temperature (float): temperature of the softmax. Defaults to 0.1.
                proj_output_dim (int): width of the output of ``single`` and ``simclr``. Defaults to 128.
                num_groups (int): number of groups in the mode ``group``. Defaults to 8.
        """

        large_crops = 2
        same_on_all_processes = True

        def build(
            self,
            mode: str = "directclr",
            dim: int = 360,
            temperature: float = 0.1,
            proj_output_dim: int = 128,
            num_groups: int = 8,
        ) -> None:
            width = self.features_dim
            if mode not in MODES:
                raise ConfigError(f"method_kwargs.mode: {unknown('mode', str(mode), MODES)}")
            check_positive("temperature", temperature)
            check_int("dim", dim, minimum=1)
            check_int("proj_output_dim", proj_output_dim, minimum=1)
            check_int("num_groups", num_groups, minimum=1)
            if mode == "directclr" and dim > width:
                raise ConfigError(
                    f"method_kwargs.dim: {dim!r} is not allowed; it must be a whole number from 1 to "
                    f"{width}, the width of the backbone's features."
                )
            if mode == "group" and width % num_groups:
                raise ConfigError(
                    f"method_kwargs.num_groups: {num_groups!r} is not allowed; it must divide {width}, "
                    "the width of the backbone's features."
                )
            self.mode, self.temperature, self.num_groups = mode, temperature, num_groups
            if mode == "directclr":
                self.projector: nn.Module = FirstEntries(dim)
            elif mode == "single":
                self.projector = nn.Linear(width, proj_output_dim, bias=False)
            elif mode == "simclr":
                self.projector = nn.Sequential(
                    nn.Linear(width, width, bias=False),
                    nn.BatchNorm1d(width),
                    nn.ReLU(),
                    nn.Linear(width, proj_output_dim, bias=False),
                    nn.BatchNorm1d(proj_output_dim),
                )
            else:
                self.projector = nn.Identity()

        def loss(self, features: Sequence[Tensor], embeddings: Sequence[Tensor]) -> dict[str, Tensor]:
            z1, z2 = (all_gather(view) for view in embeddings)
            groups = [torch.arange(z1.size(1), device=z1.device)]
            if self.mode == "group":
                order = broadcast(torch.randperm(z1.size(1), device=z1.device))
                groups = list(order.chunk(self.num_groups))
            losses = [info_nce_loss(z1[:, group], z2[:, group], self.temperature) for group in groups]
            loss = torch.stack(losses).sum()
            return {"loss": loss, "nce_loss": loss}

    return DirectCLR
