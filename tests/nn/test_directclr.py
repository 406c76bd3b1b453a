"""The DirectCLR module against its function."""

import pytest
import torch

from solo_dimreg import DirectCLR
from solo_dimreg.functional import directclr_loss


def test_it_is_the_function():
    r1, r2 = torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(0)).unbind()
    expected = directclr_loss(r1, r2, 4, 0.2)
    torch.testing.assert_close(DirectCLR(dim=4, temperature=0.2)(r1, r2), expected, rtol=0, atol=0)


def test_a_width_below_dim_is_refused():
    with pytest.raises(ValueError, match="from 1 to the width of r1, 64, got 360"):
        DirectCLR()(torch.zeros(4, 64), torch.zeros(4, 64))
