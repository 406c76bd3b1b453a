"""The ``projector:`` block of a config: a normalization as the last layer of any method's projector.

    projector: {normalization: shuffled_dbn, num_groups: auto}

Hua et al. (ICCV 2021) train feature decorrelation with such a layer. Their released code also puts it behind
the projectors of BYOL, SimCLR, SimSiam and Barlow Twins. Momentum copies of the projector get it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from solo_dimreg.errors import ConfigError
from solo_dimreg.nn.normalization import normalization_layer
from solo_dimreg.solo_learn.regularizers import check_keys, key_of, parameter_names


def projector_settings(block: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a ``projector:`` block, checked without the width, which is unknown yet; None without one.

    Raises:
        ConfigError: A key is unknown, or a value is out of range.
    """
    if not block:
        return None
    if not isinstance(block, Mapping):
        raise ConfigError(f"projector: {block!r} is not a mapping of settings, {{normalization: dbn}}.")
    check_keys("projector", block, parameter_names(normalization_layer)[0] - {"width"})
    _layer(1, {key: value for key, value in block.items() if key != "num_groups"})
    return dict(block)


def append_normalization(owner: nn.Module, name: str, width: int, settings: Mapping[str, Any]) -> None:
    """Append the layer to the module ``name`` of ``owner``, which takes features (B, width).

    Raises:
        ConfigError: The groups do not fit the width of the embeddings.
    """
    parent_name, _, attribute = name.rpartition(".")
    parent = owner.get_submodule(parent_name)
    projector = getattr(parent, attribute)
    layer = _layer(_output_width(projector, width), settings)
    if name.startswith("momentum_"):
        layer.requires_grad_(False)  # like the rest of the copy
    if isinstance(projector, nn.Sequential):
        projector.append(layer)  # this keeps the names of the weights
    else:
        setattr(parent, attribute, nn.Sequential(projector, layer))


def _layer(width: int, settings: Mapping[str, Any]) -> nn.Module:
    try:
        return normalization_layer(width, **settings)
    except ValueError as error:
        raise ConfigError(f"{key_of('projector', settings, error)}: {error}") from error


@torch.no_grad()
def _output_width(module: nn.Module, width: int) -> int:
    training = [m for m in module.modules() if m.training]
    module.eval()  # no random numbers, and no running statistics change
    out = module(torch.zeros(2, width)).shape[1]
    for each in training:
        each.training = True
    return out
