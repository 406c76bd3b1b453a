"""Feature decorrelation as a method of solo-learn."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from solo_dimreg.functional import off_diagonal_correlation
from solo_dimreg.functional._checks import check_int
from solo_dimreg.nn.normalization import normalization_layer


def make_shuffled_dbn(base: type) -> type:
    """Return feature decorrelation as a subclass of ``base``, the ``Method`` of the host."""

    class FeatureDecorrelation(base):  # type: ignore[misc, valid-type]
        """Implements feature decorrelation (Hua et al., ICCV 2021, https://arxiv.org/abs/2105.00470).

        The loss is the squared distance between the embeddings of two views, whose covariance the projector
        standardizes. There are no negatives, no predictor and no momentum encoder.

        Extra cfg settings:
            method_kwargs:
                normalization (str): the last layer of the projector. With ``none`` the embeddings collapse
                    completely, and with ``bn`` in their dimensions. ``dbn`` whitens groups of axes, and
                    ``shuffled_dbn`` groups that are drawn anew at every step. Defaults to ``shuffled_dbn``.
                num_groups (int): number of groups of axes that are whitened, a divisor of
                    ``proj_output_dim``. With ``auto``, a group has at most half as many axes as the batch has
                    samples, and at most 256. Defaults to 8.
                proj_hidden_dim (int): width of the projector's hidden layer. Defaults to 2048.
                proj_output_dim (int): width of the embeddings. Defaults to 256.
                eps (float): added to variances and eigenvalues. Defaults to 1e-5.
                momentum (float): weight of the batch in the running statistics. Defaults to 0.1.
                affine (bool): learn a scale and a shift of each axis. Defaults to False.
                track_running_stats (bool): evaluate with running statistics, instead of the statistics of the
                    batch as the paper's code does. Defaults to True.
        """

        large_crops = 2

        def build(
            self,
            normalization: str = "shuffled_dbn",
            num_groups: int | str = 8,
            proj_hidden_dim: int = 2048,
            proj_output_dim: int = 256,
            eps: float = 1e-5,
            momentum: float = 0.1,
            affine: bool = False,
            track_running_stats: bool = True,
        ) -> None:
            check_int("proj_hidden_dim", proj_hidden_dim, minimum=1)
            check_int("proj_output_dim", proj_output_dim, minimum=1)
            self.projector = nn.Sequential(
                nn.Linear(self.features_dim, proj_hidden_dim),
                nn.BatchNorm1d(proj_hidden_dim),
                nn.ReLU(),
                nn.Linear(proj_hidden_dim, proj_output_dim),
                normalization_layer(
                    proj_output_dim, normalization, num_groups, eps, momentum, affine, track_running_stats
                ),
            )

        def loss(self, features: Sequence[Tensor], embeddings: Sequence[Tensor]) -> dict[str, Tensor]:
            z1, z2 = embeddings
            loss = (z1 - z2).square().sum(dim=1).mean()
            correlation = off_diagonal_correlation(z1.detach())
            return {"loss": loss, "distance": loss.detach(), "z_correlation": correlation}

    return FeatureDecorrelation
