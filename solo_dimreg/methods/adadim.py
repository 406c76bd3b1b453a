"""AdaDim as a method of solo-learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from solo_dimreg.functional._checks import check_int
from solo_dimreg.nn import AdaDim as AdaDimLoss


def make_adadim(base: type) -> type:
    """Return AdaDim as a subclass of ``base``, the ``Method`` of the host."""

    class AdaDim(base):  # type: ignore[misc, valid-type]
        """Implements AdaDim (Kokilepersaud et al., 2025, https://arxiv.org/abs/2505.12576).

        This is a reconstruction from the paper's abstract, findings and reviews; its code is not public.

        Extra cfg settings:
            method_kwargs:
                proj_hidden_dim (int): width of the projector's two hidden layers. Defaults to 2048.
                proj_output_dim (int): width of the embeddings. Defaults to 2048.
                and the parameters of ``solo_dimreg.AdaDim``: alpha, rank_of, rank_against, ema, rank_every,
                gamma, beta_schedule, order, sample_weight, dimension_weight, temperature, sim, var, cov.
        """

        large_crops = 2
        same_on_all_processes = True
        criterion = AdaDimLoss

        def build(self, proj_hidden_dim: int = 2048, proj_output_dim: int = 2048, **options: Any) -> None:
            check_int("proj_hidden_dim", proj_hidden_dim, minimum=1)
            check_int("proj_output_dim", proj_output_dim, minimum=1)
            self.adadim: Any = AdaDimLoss(**options)
            # The projector of VICReg, the wider of AdaDim's two parents.
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
            loss = self.adadim(features, embeddings, progress=self.progress)
            return {"loss": loss, "adadim_loss": loss.detach(), **self.adadim.metrics}

    return AdaDim
