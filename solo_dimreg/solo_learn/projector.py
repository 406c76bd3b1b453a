"""The ``projector:`` block of a config: a normalization as the last layer of any method's projector.

    projector: {normalization: shuffled_dbn, num_groups: auto}

Hua et al. (ICCV 2021) train feature decorrelation with such a layer. Their released code also puts it behind
the projectors of BYOL, SimCLR, SimSiam and Barlow Twins. Momentum copies of the projector get it too.
"""

from __future__ import annotations

import torch
from torch import nn

from solo_dimreg.config.blocks import ProjectorSettings


def append_normalization(owner: nn.Module, name: str, width: int, settings: ProjectorSettings) -> None:
    """Append the layer to the module ``name`` of ``owner``, which takes features (B, width).

    Raises:
        ConfigError: The groups do not fit the width of the embeddings.
    """
    parent_name, _, attribute = name.rpartition(".")
    parent = owner.get_submodule(parent_name)
    projector = getattr(parent, attribute)
    layer = settings.layer(_output_width(projector, width))
    if name.startswith("momentum_"):
        layer.requires_grad_(False)  # like the rest of the copy
    if isinstance(projector, nn.Sequential):
        projector.append(layer)  # this keeps the names of the weights
    else:
        setattr(parent, attribute, nn.Sequential(projector, layer))


@torch.no_grad()
def _output_width(module: nn.Module, width: int) -> int:
    training = [m for m in module.modules() if m.training]
    module.eval()  # no random numbers, and no running statistics change
    out = module(torch.zeros(2, width)).shape[1]
    for each in training:
        each.training = True
    return out
