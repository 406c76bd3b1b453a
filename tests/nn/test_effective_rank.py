"""The EffectiveRank regularizer against its function."""

import pytest
import torch

from solo_dimreg import EffectiveRank
from solo_dimreg.functional import effective_rank


def views(dtype=torch.float64):
    return torch.randn(2, 10, 4, generator=torch.Generator().manual_seed(0), dtype=dtype).unbind()


@pytest.mark.parametrize("center", [False, True])
def test_it_is_minus_the_logarithm_over_all_views(center):
    x1, x2 = views()
    expected = -effective_rank(torch.cat([x1, x2]), center).log()
    torch.testing.assert_close(EffectiveRank(center)([x1, x2], [x1]), expected)
    torch.testing.assert_close(EffectiveRank(center)(x1), -effective_rank(x1, center).log())


def test_gradient():
    inputs = tuple(x.requires_grad_() for x in views())
    assert torch.autograd.gradcheck(lambda a, b: EffectiveRank()([a, b]), inputs)


def test_minimizing_it_raises_the_rank():
    x = views()[0] * torch.tensor([1.0, 0.1, 0.1, 0.01]).double()
    x.requires_grad_()
    before = effective_rank(x, center=True).item()
    optimizer = torch.optim.Adam([x], lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        EffectiveRank()(x).backward()
        optimizer.step()
    assert effective_rank(x, center=True).item() > before + 1


def test_no_views_are_refused():
    with pytest.raises(ValueError, match="views must hold at least 1"):
        EffectiveRank()([])
