"""The layer behind a projector, by the names of a config."""

import torch
from torch import nn

from solo_dimreg import DecorrelatedBatchNorm, ShuffledDBN
from solo_dimreg.nn.normalization import normalization_layer


def test_every_name_is_its_layer():
    kinds = {
        "none": nn.Identity,
        "bn": nn.BatchNorm1d,
        "dbn": DecorrelatedBatchNorm,
        "shuffled_dbn": ShuffledDBN,
    }
    for name, kind in kinds.items():
        layer = normalization_layer(8, name)
        assert type(layer) is kind
        assert layer(torch.randn(16, 8)).shape == (16, 8)


def test_options_reach_the_layer():
    options = {"eps": 0, "momentum": 0.3, "affine": True, "track_running_stats": False}
    layer = normalization_layer(8, "dbn", 4, **options)
    assert (layer.num_groups, layer.eps, layer.momentum, layer.track_running_stats) == (4, 0, 0.3, False)
    assert layer.weight is not None
    batch_norm = normalization_layer(8, "bn", **options)
    assert (batch_norm.eps, batch_norm.momentum, batch_norm.affine, batch_norm.running_mean) == (
        0,
        0.3,
        True,
        None,
    )
