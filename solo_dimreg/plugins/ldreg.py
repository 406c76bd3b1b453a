"""The built-in plugin of LDReg: the regularizer ``ldreg``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from solo_dimreg.functional import geometric_mean_lid
from solo_dimreg.nn import LDReg
from solo_dimreg.plugins.hookspecs import hookimpl


class LDRegRegularizer(LDReg):
    """LDReg with the settings that the paper trains SimCLR with, where a config leaves them out."""

    defaults: ClassVar[dict[str, Any]] = {"weight": 0.01, "warmup_epochs": 10}


@hookimpl
def register_regularizers() -> dict[str, type]:
    """LDReg itself."""
    return {"ldreg": LDRegRegularizer}


@hookimpl
def register_metrics() -> dict[str, Callable[[Tensor], Tensor]]:
    """The local intrinsic dimensionality, a geometric mean over features (B, D), with 32 neighbours."""
    return {"lid": lid}


def lid(features: Tensor) -> Tensor:
    """The LID of at most 256 evenly spaced rows among all rows: each costs a search through all of them."""
    queries = torch.arange(0, len(features), math.ceil(len(features) / 256), device=features.device)
    return geometric_mean_lid(features[queries], features, k=32, self_indices=queries)
