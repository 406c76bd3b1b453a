"""The built-in plugin of LDReg: the regularizer ``ldreg``."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from solo_dimreg.functional import geometric_mean_lid
from solo_dimreg.functional._rows import distinct_rows
from solo_dimreg.nn import LDReg
from solo_dimreg.plugins.hookspecs import hookimpl

MANY_NEIGHBOURS = 512


class LDRegRegularizer(LDReg):
    """`LDReg` with the paper's settings for SimCLR, unless a config says otherwise."""

    defaults: ClassVar[dict[str, Any]] = {"weight": 0.01, "warmup_epochs": 10}
    _cap_is_known = True


@hookimpl
def register_regularizers() -> dict[str, type]:
    """Return the regularizer LDReg."""
    return {"ldreg": LDRegRegularizer}


@hookimpl
def register_metrics() -> dict[str, Callable[[Tensor], Tensor]]:
    """Return three estimates of the local intrinsic dimensionality, geometric means over features (B, D).

    ``lid`` is the method of moments with 32 neighbours. The other two are maximum likelihood with 32 and 512
    neighbours, which LDReg's authors track.
    """
    return {
        "lid": partial(geometric_mean_lid, k=32),
        "lid_mle": partial(geometric_mean_lid, k=32, estimator="mle"),
        "lid_mle_512": lid_mle_512,
    }


def lid_mle_512(features: Tensor) -> Tensor:
    """Return the LID by maximum likelihood with 512 neighbours, or NaN if there are fewer."""
    distinct = features[distinct_rows(features)[0]]
    if len(distinct) <= MANY_NEIGHBOURS:
        return features.new_full((), math.nan)
    return geometric_mean_lid(distinct, k=MANY_NEIGHBOURS, estimator="mle")
