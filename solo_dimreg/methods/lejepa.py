"""LeJEPA as a method of solo-learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from solo_dimreg.functional._checks import check_int
from solo_dimreg.nn import LeJEPA as LeJEPALoss


def make_lejepa(base: type) -> type:
    """Return LeJEPA as a subclass of ``base``, the ``Method`` of the host."""

    class LeJEPA(base):  # type: ignore[misc, valid-type]
        """Implements LeJEPA (Balestriero & LeCun, 2025, https://arxiv.org/abs/2511.08544).

        The loss pulls all views to the mean of the large crops, and makes the embeddings of each view a
        Gaussian. There is no teacher, no stop-gradient and no predictor. Small crops are used if the config
        has some.

        Extra cfg settings:
            method_kwargs:
                proj_hidden_dim (int): width of the projector's two hidden layers. Defaults to 2048.
                proj_output_dim (int): width of the embeddings. Defaults to 128.
                and the parameters of ``solo_dimreg.LeJEPA``: weight, num_slices, knots, t_max.
        """

        large_crops = 2
        same_on_all_processes = True
        uses_small_crops = True
        criterion = LeJEPALoss

        def build(self, proj_hidden_dim: int = 2048, proj_output_dim: int = 128, **options: Any) -> None:
            check_int("proj_hidden_dim", proj_hidden_dim, minimum=1)
            check_int("proj_output_dim", proj_output_dim, minimum=1)
            self.lejepa: Any = LeJEPALoss(**options)
            self.projector = nn.Sequential(
                nn.Linear(self.features_dim, proj_hidden_dim),
                nn.BatchNorm1d(proj_hidden_dim),
                nn.ReLU(),
                nn.Linear(proj_hidden_dim, proj_hidden_dim),
                nn.BatchNorm1d(proj_hidden_dim),
                nn.ReLU(),
                nn.Linear(proj_hidden_dim, proj_output_dim),
            )

        def loss(self, features: Sequence[Tensor], embeddings: Sequence[Tensor]) -> dict[str, Tensor]:
            large = self.num_large_crops
            loss = self.lejepa(embeddings[:large], embeddings[large:])
            figures = {f"lejepa_{name}": value for name, value in self.lejepa.metrics.items()}
            return {"loss": loss, **figures}

    return LeJEPA
