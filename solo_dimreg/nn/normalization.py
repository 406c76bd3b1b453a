"""The layer after a projector, which standardizes or whitens the embeddings."""

from __future__ import annotations

from torch import nn

from solo_dimreg.functional._checks import check_between, check_bool, check_choice
from solo_dimreg.nn.decorrelation import DecorrelatedBatchNorm, ShuffledDBN

WHITENING = {"dbn": DecorrelatedBatchNorm, "shuffled_dbn": ShuffledDBN}


def normalization_layer(
    width: int,
    normalization: str = "shuffled_dbn",
    num_groups: int | str = "auto",
    eps: float = 1e-5,
    momentum: float = 0.1,
    affine: bool = False,
    track_running_stats: bool = True,
) -> nn.Module:
    """Return the layer that normalizes the output of a projector, embeddings (B, width).

    Args:
        width: width of the embeddings.
        normalization: ``none`` does nothing, and the embeddings collapse completely without another remedy;
            ``bn`` standardizes each axis; ``dbn`` whitens groups of axes; ``shuffled_dbn`` whitens groups
            that are drawn anew at every step.
        num_groups: number of groups of axes that are whitened, a divisor of the width, or ``auto``, see
            :class:`solo_dimreg.DecorrelatedBatchNorm`.
        eps: added to variances and eigenvalues, at least 0.
        momentum: weight of the batch in the running statistics, from 0 to 1.
        affine: learn a scale and a shift of each axis.
        track_running_stats: keep running statistics for evaluation; without them, evaluation uses the
            statistics of its own batches.

    Raises:
        ConfigError: an option is unknown or out of range.
    """
    check_choice("normalization", normalization, ("none", "bn", *WHITENING))
    check_between("eps", eps, 0)
    check_between("momentum", momentum, 0, 1)
    check_bool("affine", affine)
    check_bool("track_running_stats", track_running_stats)
    if normalization == "none":
        return nn.Identity()
    if normalization == "bn":
        return nn.BatchNorm1d(width, eps, momentum, affine, track_running_stats)
    return WHITENING[normalization](width, num_groups, eps, momentum, affine, track_running_stats)
