"""Self-supervised learning by feature decorrelation alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from solo_dimreg.errors import ConfigError, unknown
from solo_dimreg.functional import off_diagonal_correlation
from solo_dimreg.functional._checks import check_between, check_int, check_positive
from solo_dimreg.functional.decorrelation import check_groups
from solo_dimreg.nn import DecorrelatedBatchNorm, ShuffledDBN

# What stands behind the projector: (embeddings, groups, eps, momentum, affine) to a layer.
NORMALIZATIONS: dict[str, Callable[[int, int, float, float, bool], nn.Module]] = {
    "none": lambda width, groups, eps, momentum, affine: nn.Identity(),
    "bn": lambda width, groups, eps, momentum, affine: nn.BatchNorm1d(width, eps, momentum, affine),
    "dbn": DecorrelatedBatchNorm,
    "shuffled_dbn": ShuffledDBN,
}
WHITENING = ("dbn", "shuffled_dbn")


def make_shuffled_dbn(base: type) -> type:
    """Feature decorrelation on ``base``, the ``Method`` of the host."""

    class FeatureDecorrelation(base):  # type: ignore[misc, valid-type]
        """Implements feature decorrelation (Hua et al., ICCV 2021, https://arxiv.org/abs/2105.00470).

        Two views, one projector, a standardized covariance, and the squared distance of the embeddings: no
        negatives, no predictor, no momentum encoder.

        Extra cfg settings:
            method_kwargs:
                normalization (str): the last layer of the projector. ``none`` collapses completely, ``bn``
                    in dimensions, ``dbn`` whitens groups of axes, ``shuffled_dbn`` groups drawn anew at every
                    step. Defaults to ``shuffled_dbn``.
                num_groups (int): groups of axes that are whitened, a divisor of ``proj_output_dim``. Defaults
                    to 8.
                proj_hidden_dim (int): width of the projector's hidden layer. Defaults to 2048.
                proj_output_dim (int): width of the embeddings. Defaults to 256.
                eps (float): added to variances and eigenvalues. Defaults to 1e-5.
                momentum (float): weight of the batch in the running statistics. Defaults to 0.1.
                affine (bool): learn a scale and a shift of each axis. Defaults to False.
        """

        large_crops = 2

        def build(
            self,
            normalization: str = "shuffled_dbn",
            num_groups: int = 8,
            proj_hidden_dim: int = 2048,
            proj_output_dim: int = 256,
            eps: float = 1e-5,
            momentum: float = 0.1,
            affine: bool = False,
        ) -> None:
            if not isinstance(normalization, str) or normalization not in NORMALIZATIONS:
                problem = unknown("normalization", str(normalization), NORMALIZATIONS)
                raise ConfigError(f"method_kwargs.normalization: {problem}")
            check_int("proj_hidden_dim", proj_hidden_dim, minimum=1)
            check_int("proj_output_dim", proj_output_dim, minimum=1)
            check_positive("eps", eps)
            check_between("momentum", momentum, 0, 1)
            if not isinstance(affine, bool):
                raise ConfigError(f"affine must be true or false, got {affine!r}.")
            self.group_size = 0
            if normalization in WHITENING:
                check_groups(proj_output_dim, num_groups)
                self.group_size = proj_output_dim // num_groups
            self.projector = nn.Sequential(
                nn.Linear(self.features_dim, proj_hidden_dim),
                nn.BatchNorm1d(proj_hidden_dim),
                nn.ReLU(),
                nn.Linear(proj_hidden_dim, proj_output_dim),
                NORMALIZATIONS[normalization](proj_output_dim, num_groups, eps, momentum, affine),
            )

        def on_fit_start(self) -> None:
            batch = self.batch_size * self.trainer.world_size
            if self.group_size >= batch:
                raise ConfigError(
                    f"method_kwargs.num_groups: gives groups of {self.group_size} axes, which a batch of "
                    f"{batch} cannot whiten; raise num_groups or optimizer.batch_size."
                )

        def loss(self, features: Sequence[Tensor], embeddings: Sequence[Tensor]) -> dict[str, Tensor]:
            z1, z2 = embeddings
            loss = (z1 - z2).square().sum(dim=1).mean()
            correlation = off_diagonal_correlation(z1.detach())
            return {"loss": loss, "distance": loss.detach(), "z_correlation": correlation}

    return FeatureDecorrelation
