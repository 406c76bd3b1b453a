"""Views of a batch, given as one tensor or as several."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from solo_dimreg.functional._checks import check_features


def as_views(name: str, views: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """The views as a list of tensors of one shape (B, D).

    Raises:
        ValueError: a view is not of shape (B, D), or their shapes differ.
    """
    listed = [views] if isinstance(views, Tensor) else list(views)
    for view in listed:
        check_features(name, view)
    if len({view.shape for view in listed}) > 1:
        raise ValueError(f"{name} must all have one shape, got {[tuple(view.shape) for view in listed]}.")
    return listed
