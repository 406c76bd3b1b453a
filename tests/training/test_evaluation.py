"""The classifier of a linear probe."""

import pytest
import torch
from torch import nn

from solo_dimreg.config.blocks import ClassifierSettings
from solo_dimreg.config.parsing import Block, parse
from solo_dimreg.errors import ConfigError
from solo_dimreg.training.evaluation import classifier_head


class Config(Block):
    classifier: ClassifierSettings


def test_ldregs_classifier_normalizes_and_starts_small():
    linear = nn.Linear(512, 100)
    torch.manual_seed(0)
    head = classifier_head(linear, ClassifierSettings(normalization="bn", init_std=0.01))
    batch_norm, last = head
    assert last is linear and not batch_norm.affine
    assert linear.weight.std().item() == pytest.approx(0.01, rel=0.02) and linear.bias.abs().sum() == 0
    x = 5 + 3 * torch.randn(64, 512)
    expected = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt() @ linear.weight.T
    torch.testing.assert_close(head(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [None, ClassifierSettings()])
def test_without_a_block_it_is_solo_learns(settings):
    linear = nn.Linear(8, 3)
    before = linear.weight.clone()
    assert classifier_head(linear, settings) is linear and torch.equal(linear.weight, before)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"normalisation": "bn"}, "classifier.normalisation: unknown key .* Did you mean 'normalization'"),
        ({"normalization": "dbn"}, "classifier.normalization: Unknown name 'dbn'"),
        ({"init_std": 0}, "classifier.init_std: 0 is not allowed; it must be a number > 0"),
    ],
)
def test_wrong_blocks_are_refused(block, message):
    with pytest.raises(ConfigError, match=message):
        parse(Config, {"classifier": block})
