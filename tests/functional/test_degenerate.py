"""Every loss and metric of degenerate features, in every precision: a finite value and a finite gradient."""

from functools import partial

import pytest
import torch
from numeric import normal
from support import slow

from solo_dimreg import (
    TREGS,
    AdaDim,
    EffectiveRank,
    KoLeo,
    LDReg,
    SIGReg,
    Uniformity,
    VISReg,
    WassersteinUniformity,
)
from solo_dimreg import functional as F

DEGENERATE = {
    "zeros": torch.zeros(6, 4),
    "ones": torch.ones(6, 4),
    "one value": torch.full((6, 4), 7.3),
    "equal distances": torch.eye(4),
    "duplicates": normal(2, 4).repeat(3, 1),
    "equal features": normal(6, 1).repeat(1, 4),
    "constant features": torch.cat([normal(6, 2), torch.full((6, 2), 3.0)], dim=1),
    "one point": normal(1, 4),
    "two points": normal(2, 4),
    "three points": normal(3, 4),
    "more features than points": normal(3, 40),
}
SCALED = {
    "tiny": 1e-18 * normal(8, 4),
    "subnormal squares": 1e-22 * normal(8, 4),
    "large": 1e15 * normal(8, 4),
}
PENALTIES = F.decorrelation_loss, F.off_diagonal_correlation, F.variance_hinge, F.covariance_penalty
VIEWS = (
    SIGReg(64),
    VISReg(64),
    TREGS(),
    Uniformity(),
    KoLeo(),
    WassersteinUniformity(),
    LDReg(),
    EffectiveRank(),
)
# Name: the function, and the range of its values.
CASES = {
    "lid mom": (lambda x: F.geometric_mean_lid(x).log(), -torch.inf, torch.inf),
    "lid mle": (lambda x: F.geometric_mean_lid(x, estimator="mle").log(), -torch.inf, torch.inf),
    "ldreg l1": (F.ldreg_loss, -torch.inf, torch.inf),
    "ldreg l2": (partial(F.ldreg_loss, norm="l2"), -torch.inf, 0),
    "effective rank": (F.effective_rank, 1, 6),
    "centred effective rank": (partial(F.effective_rank, center=True), 1, 6),
    "rankme": (F.rankme, 1, 6),
    "entropy 1": (lambda x: F.matrix_entropy(x, 1), 0, 2),
    "entropy 2": (F.matrix_entropy, 0, 2),
    "information 1": (lambda x: F.matrix_mutual_information(x, x[:, :2], 1), 0, 2),
    "information 2": (lambda x: F.matrix_mutual_information(x, x[:, :2]), -2, 2),
    "alignment": (lambda x: F.alignment(x, x.flip(1)), 0, 4),
    "directclr": (lambda x: F.directclr_loss(x, x, dim=2), 0, 2),
    "ntxent": (lambda x: F.ntxent_loss(x, x), 0, 20),
    "vicreg": (lambda x: F.vicreg_loss(x, x), 0, torch.inf),
    "adadim 1": (lambda x: AdaDim(order=1)([x, x], [x[:, :3], x[:, :3]]), -torch.inf, torch.inf),
    "adadim 2": (lambda x: AdaDim(order=2)([x, x], [x[:, :3], x[:, :3]]), -torch.inf, torch.inf),
    "ldreg momentum": (lambda x: LDReg()([x, x], [x.detach()]), -torch.inf, torch.inf),
    **{f.__name__: (f, 0, torch.inf) for f in PENALTIES},
    **{type(m).__name__: (lambda x, m=m: m([x, x]), -torch.inf, torch.inf) for m in VIEWS},
}


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, pytest.param(torch.float16, marks=slow), pytest.param(torch.bfloat16, marks=slow)],
)
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_finite(name, dtype):
    function, low, high = CASES[name]
    for kind, x in DEGENERATE.items():
        for autocast in (False, True):
            x = x.detach().to(dtype).requires_grad_()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                value = function(x)
            (gradient,) = torch.autograd.grad(value, x)
            assert value.dtype == torch.float32, kind
            assert low - 1e-4 <= value <= high + 1e-4 and torch.isfinite(value), (kind, value)
            assert torch.isfinite(gradient).all() and gradient.abs().max() < 1e3, (kind, gradient)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("estimator", ["mom", "mle"])
def test_lid_is_finite_at_every_scale(estimator, dtype):
    for kind, x in SCALED.items():
        if (kind, dtype) != ("large", torch.float16):  # no float16 number is that large
            x = x.to(dtype).requires_grad_()
            lid = F.local_intrinsic_dimensionality(x, estimator=estimator)
            (gradient,) = torch.autograd.grad(lid.log().mean(), x)
            assert torch.isfinite(lid).all() and (lid > 0).all() and torch.isfinite(gradient).all(), kind


def test_ranks_of_degenerate_features_lie_in_their_range():
    for x in (torch.zeros(6, 4), torch.ones(6, 4), normal(2, 4).repeat(3, 1)):
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                rank = F.lidar(x.to(dtype), 2)
            assert rank.dtype == torch.float32 and 1 - 1e-4 <= rank <= 4


def test_whitened_degenerate_batches_are_finite():
    for kind in ("zeros", "ones", "duplicates", "equal features"):
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            x = DEGENERATE[kind].detach().to(dtype).requires_grad_()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                whitened = F.zca_whiten(x)
            (whitened.sin() * torch.arange(4)).sum().backward()
            assert whitened.dtype == torch.float32
            assert torch.isfinite(whitened).all() and torch.isfinite(x.grad).all()
