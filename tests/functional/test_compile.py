"""The functions in ``torch.compile`` without a graph break, and under ``torch.func.grad``."""

import pytest
import torch
from support import most_slow

from solo_dimreg import (
    TREGS,
    AdaDim,
    DecorrelatedBatchNorm,
    Decorrelation,
    DirectCLR,
    EffectiveRank,
    KoLeo,
    LDReg,
    LeJEPA,
    SIGReg,
    Uniformity,
    VISReg,
    WassersteinUniformity,
)
from solo_dimreg import functional as F


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


REFERENCE = normal(40, 12, seed=1)
SLICES = torch.nn.functional.normalize(normal(12, 20, seed=2), dim=0)
CASES = {
    "lid": lambda x: F.local_intrinsic_dimensionality(x, k=5).log().sum(),
    "lid mle": lambda x: F.local_intrinsic_dimensionality(x, k=5, estimator="mle").log().sum(),
    "lid of a reference": lambda x: F.local_intrinsic_dimensionality(x, REFERENCE, k=5).log().sum(),
    "ldreg": lambda x: F.ldreg_loss(x, k=5),
    "effective rank": lambda x: F.effective_rank(x, center=True),
    "whitening": lambda x: F.zca_whiten(x, num_groups=3).sin().sum(),
    "decorrelation": lambda x: F.decorrelation_loss(x),
    "mutual information": lambda x: F.matrix_mutual_information(x, x[:, :4].sin()),
    "directclr": lambda x: F.directclr_loss(x, x.flip(1), dim=5),
    "uniformity": lambda x: F.uniformity(x),
    "wasserstein uniformity": lambda x: F.wasserstein_uniformity(x),
    "koleo": lambda x: F.koleo_loss(x),
    "sigreg": lambda x: F.sigreg_loss(x, SLICES),
    "visreg": lambda x: F.visreg_loss(x, SLICES),
    "t_reg": lambda x: F.t_reg_loss(x),
}
MODULES = {
    "ldreg": (LDReg(k=5), lambda m, x: m([x, x.sin()])),
    "ldreg momentum": (LDReg(k=5), lambda m, x: m([x, x.sin()], [x.cos(), x.tanh()])),
    "adadim": (AdaDim(rank_every=3), lambda m, x: m([x, x.sin()], [x[:, :5], x[:, 3:8]])),
    "dbn": (DecorrelatedBatchNorm(12, 3), lambda m, x: m(x).sin().sum()),
    "decorrelation": (Decorrelation(), lambda m, x: m([x, x.sin()])),
    "effective rank": (EffectiveRank(), lambda m, x: m([x, x.sin()])),
    "directclr": (DirectCLR(dim=5), lambda m, x: m(x, x.sin())),
    "lejepa": (LeJEPA(num_slices=20), lambda m, x: m([x, x.sin()], [x.cos()])),
    **{
        type(module).__name__: (module, lambda m, x: m([x, x.sin()]))
        for module in (SIGReg(20), VISReg(20), TREGS(), Uniformity(), KoLeo(), WassersteinUniformity())
    },
}


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()


def breaks(function, x):
    return torch._dynamo.explain(function)(x).graph_break_count


def check_compiled(function, x):
    """The same value and gradient with and without, in one graph; a later call runs the same code."""
    assert breaks(function, x.clone().requires_grad_()) == 0
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for seed in range(3):
        found, expected = (normal(*x.shape, seed=seed + 5).requires_grad_() for _ in range(2))
        value, truth = compiled(found), function(expected)
        torch.testing.assert_close(value, truth)
        torch.testing.assert_close(
            torch.autograd.grad(value, found)[0], torch.autograd.grad(truth, expected)[0]
        )


@pytest.mark.parametrize("name", most_slow(CASES, keep=["lid", "decorrelation"]))
def test_functions_compile_into_one_graph(name):
    check_compiled(CASES[name], normal(24, 12))


@pytest.mark.parametrize("name", most_slow(MODULES, keep=["ldreg", "adadim"]))
def test_modules_compile_into_one_graph(name):
    module, call = MODULES[name]
    x = normal(24, 12).requires_grad_()
    assert breaks(lambda x: call(module, x), x) == 0
    compiled = torch.compile(lambda x: call(module, x), fullgraph=True, backend="aot_eager")
    for _ in range(12):  # more calls than torch would compile anew
        loss = compiled(x)
    assert torch.isfinite(loss) and torch.isfinite(torch.autograd.grad(loss, x)[0]).all()


def test_functional_gradients():
    for function in CASES.values():
        x = normal(24, 12).requires_grad_()
        (expected,) = torch.autograd.grad(function(x), x)
        torch.testing.assert_close(torch.func.grad(function)(x.detach()), expected)
