"""The views of a batch, given as one tensor or as several."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from solo_dimreg.functional._checks import check_features


def as_views(name: str, views: Tensor | Sequence[Tensor], minimum: int = 0) -> list[Tensor]:
    """Return the views as a list of at least ``minimum`` tensors of one shape (B, D).

    Raises:
        ValueError: there are too few views, one is not of shape (B, D), or their shapes differ.
    """
    listed = [views] if isinstance(views, Tensor) else list(views)
    if len(listed) < minimum:
        raise ValueError(f"{name} must hold at least {minimum} tensors of shape (B, D), got {len(listed)}.")
    for view in listed:
        check_features(name, view)
    if len({view.shape for view in listed}) > 1:
        raise ValueError(f"{name} must all have the same shape, got {[tuple(v.shape) for v in listed]}.")
    return listed
