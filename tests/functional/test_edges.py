"""Numbers near the ends of float32, other number types, and shapes that only a caller can mend."""

import numpy as np
import pytest
import torch

from solo_dimreg import LDReg
from solo_dimreg.functional import (
    alignment,
    alpha_req,
    decorrelation_loss,
    directclr_loss,
    effective_rank,
    geometric_mean_lid,
    koleo_loss,
    ldreg_loss,
    lidar,
    matrix_entropy,
    matrix_mutual_information,
    ntxent_loss,
    off_diagonal_correlation,
    rankme,
    uniformity,
    wasserstein_uniformity,
)
from solo_dimreg.functional.decorrelation import covariance_penalty, variance_hinge

x, y = torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(0)) @ torch.randn(
    8, 8, generator=torch.Generator().manual_seed(1)
)
INVARIANT = {
    "effective_rank": lambda s: effective_rank(s * x),
    "centred effective_rank": lambda s: effective_rank(s * (x + 1), center=True),
    "rankme": lambda s: rankme(s * x),
    "alpha_req": lambda s: alpha_req(s * x),
    "correlation": lambda s: off_diagonal_correlation(s * x),
    "decorrelation": lambda s: decorrelation_loss(s * x, variance_weight=0),
    "directclr": lambda s: directclr_loss(s * x, s * y, dim=8),
    "ntxent": lambda s: ntxent_loss(s * x, s * y),
    "uniformity": lambda s: uniformity(s * x),
    "wasserstein uniformity": lambda s: wasserstein_uniformity(s * x),
    "koleo": lambda s: koleo_loss(s * x),
    "alignment": lambda s: alignment(s * x, s * y),
    "entropy": lambda s: matrix_entropy(s * x),
    "information": lambda s: matrix_mutual_information(s * x, s * y),
    "lid": lambda s: geometric_mean_lid(s * x, k=8),
    "ldreg": lambda s: ldreg_loss(s * x, k=8),
}


@pytest.mark.parametrize("name", INVARIANT)
def test_the_scale_of_the_features_does_not_matter(name):
    expected = INVARIANT[name](1.0)
    # Numbers of 1e-40 have 17 bits.
    for scale, tolerance in ((1e20, 1e-5), (1e-20, 1e-5), (1e-40, 1e-3)):
        found = INVARIANT[name](scale)
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance, check_dtype=False)


@pytest.mark.parametrize("scale", [1e20, 1e-20])
def test_gradients_are_finite_at_every_scale(scale):
    for function in (
        lambda v: off_diagonal_correlation(v),
        lambda v: directclr_loss(v, scale * y, dim=8),
        lambda v: ldreg_loss(v, k=8),
        lambda v: effective_rank(v),
    ):
        v = (scale * x).requires_grad_()
        (gradient,) = torch.autograd.grad(function(v), v)
        assert torch.isfinite(gradient).all()


def test_lidar_of_large_features_is_that_of_their_discriminants():
    # Beside features of 1e20, what is added to the covariance within a sample is nothing.
    views = x.repeat_interleave(2, dim=0) + 0.1 * torch.randn(
        80, 8, generator=torch.Generator().manual_seed(2)
    )
    torch.testing.assert_close(lidar(1e20 * views, 2), lidar(1e4 * views, 2), rtol=1e-4, atol=0)


@pytest.mark.parametrize("function", [variance_hinge, covariance_penalty])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.zeros(3), r"x must have shape \(B, D\)"),
        (torch.zeros(3, 2, dtype=torch.complex64), "x must be a floating-point tensor"),
        (torch.zeros(3, 2, dtype=torch.long), "x must be a floating-point tensor"),
    ],
)
def test_penalties_refuse_what_is_no_feature_matrix(function, wrong, message):
    with pytest.raises(ValueError, match=message):
        function(wrong)


def test_integers_of_numpy_are_integers():
    assert LDReg(k=np.int64(8))([x]) == LDReg(k=8)([x])
    with pytest.raises(ValueError, match="k must be an integer >= 2, got"):
        LDReg(k=np.float64(8))
    with pytest.raises(ValueError, match="got"):
        LDReg(k=np.bool_(True))
