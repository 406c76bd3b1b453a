"""What float64 is for in the spectra of losses, and the option that gives it up."""

import pytest
import torch
from numeric import normal
from torch.utils._python_dispatch import TorchDispatchMode

from solo_dimreg import DecorrelatedBatchNorm, ShuffledDBN, WassersteinUniformity
from solo_dimreg.functional import wasserstein_uniformity, zca_whiten

WEIGHTS = normal(200, 48, seed=3)
LOSSES = {
    "wasserstein_uniformity": wasserstein_uniformity,
    "zca_whiten": lambda x, **options: (zca_whiten(x, **options) * WEIGHTS).sum(),
    "WassersteinUniformity": lambda x, **options: WassersteinUniformity(**options)([x]),
    "DecorrelatedBatchNorm": lambda x, **options: (DecorrelatedBatchNorm(48, **options)(x) * WEIGHTS).sum(),
    "ShuffledDBN": lambda x, **options: (ShuffledDBN(48, **options)(x) * WEIGHTS).sum(),
}
# Eight axes, and a noise of 1 % on all: a collapse of dimensions.
COLLAPSED = normal(200, 8) @ normal(8, 48, seed=1) / 8**0.5 + 0.01 * normal(200, 48, seed=2)


def gradient(loss, x, **options):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(loss(x, **options), x)[0].double()


def error(loss, x, **options):
    expected = gradient(loss, x.float().double())
    return float((gradient(loss, x.float(), **options) - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", LOSSES)
def test_float64_keeps_the_gradient_of_collapsed_features(name):
    # One draw of the axes for all calls.
    loss = LOSSES[name]
    torch.manual_seed(0)
    assert error(loss, COLLAPSED) < 1e-4
    assert error(loss, COLLAPSED, float64=False) > 1e-3


@pytest.mark.parametrize("name", LOSSES)
def test_float32_is_enough_for_features_that_fill_all_axes(name):
    assert error(LOSSES[name], normal(200, 48), float64=False) < 1e-4


class Decompositions(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.dtypes = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ == "_linalg_eigh":
            self.dtypes.add(args[0].dtype)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("float64", [True, False])
@pytest.mark.parametrize("name", LOSSES)
def test_the_option_chooses_the_precision(name, float64):
    with Decompositions() as found:
        gradient(LOSSES[name], normal(200, 48).float(), float64=float64)
    assert found.dtypes == {torch.float64 if float64 else torch.float32}
