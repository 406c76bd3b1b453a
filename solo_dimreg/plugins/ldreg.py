"""The built-in plugin of LDReg: the regularizer ``ldreg``."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from solo_dimreg.functional import geometric_mean_lid
from solo_dimreg.nn import LDReg
from solo_dimreg.plugins.hookspecs import hookimpl


class LDRegRegularizer(LDReg):
    """LDReg with the settings that the paper trains SimCLR with, where a config leaves them out."""

    defaults: ClassVar[dict[str, Any]] = {"weight": 0.01, "warmup_epochs": 10}
    _cap_is_known = True


@hookimpl
def register_regularizers() -> dict[str, type]:
    """LDReg itself."""
    return {"ldreg": LDRegRegularizer}


@hookimpl
def register_metrics() -> dict[str, Callable[[Tensor], Tensor]]:
    """The local intrinsic dimensionality, a geometric mean over features (B, D).

    By moments with 32 neighbours, and as LDReg's authors track it: by maximum likelihood with 32 and 512.
    """
    return {
        "lid": lid,
        "lid_mle": partial(lid, estimator="mle"),
        "lid_mle_512": partial(lid, k=512, estimator="mle"),
    }


def lid(features: Tensor, k: int = 32, estimator: str = "mom") -> Tensor:
    """The LID of at most 256 evenly spaced rows among all rows: each costs a search through all of them.

    NaN where there are too few rows for the 512 neighbours of LDReg's tracking.
    """
    if len(features) <= k == 512:
        return features.new_full((), math.nan)
    queries = torch.arange(0, len(features), math.ceil(len(features) / 256), device=features.device)
    return geometric_mean_lid(features[queries], features, k, estimator, queries)
