"""Full precision, whatever the user allows elsewhere: of matrix products, and on devices without float64."""

import copy
from typing import NamedTuple

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from solo_dimreg import (
    TREGS,
    AdaDim,
    DecorrelatedBatchNorm,
    Decorrelation,
    DimensionalityTracker,
    DirectCLR,
    EffectiveRank,
    KoLeo,
    LDReg,
    Uniformity,
    WassersteinUniformity,
    functional,
    metrics,
)
from solo_dimreg.functional import _precision, geometric_mean_lid, two_nn
from solo_dimreg.functional.neighbours import nearest_neighbours

BACKENDS = torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)
# From PyTorch 2.9 on there are two interfaces, and reading one raises where the other contradicts it.
ENTRIES = [backend for backend in BACKENDS if hasattr(backend, "fp32_precision")]


def set_entry(index, precision):
    ENTRIES[index].fp32_precision = precision


def set_general(precision):
    torch.backends.fp32_precision = precision


PRECISIONS = {
    "default": [],
    "overall": [lambda: torch.set_float32_matmul_precision("medium")],
    "cuda": [lambda: set_entry(0, "tf32")],
    "cpu": [lambda: set_entry(1, "bf16")],
    "both": [lambda: set_entry(0, "tf32"), lambda: set_entry(1, "tf32")],
    "inherited": [lambda: set_general("tf32")],
    "mixed": [lambda: torch.set_float32_matmul_precision("high"), lambda: set_entry(0, "ieee")],
    "full against a general one": [lambda: set_general("tf32"), lambda: set_entry(0, "ieee")],
}


def precisions():
    """Return what both interfaces say, and whether the entries still follow the general one."""
    try:
        overall = torch.get_float32_matmul_precision()
    except RuntimeError:
        overall = "contradicted"
    found = [overall, *(entry.fp32_precision for entry in ENTRIES)]
    if ENTRIES:
        general = torch.backends.fp32_precision
        for value in ("ieee", "tf32", general):
            set_general(value)
            found += [entry.fp32_precision for entry in ENTRIES]
    return found


@pytest.fixture
def precision_put_back():
    yield
    torch.set_float32_matmul_precision("highest")
    for index in range(len(ENTRIES)):
        set_entry(index, "none")
    if ENTRIES:
        set_general("none")


@pytest.mark.usefixtures("precision_put_back")
@pytest.mark.parametrize("setting", PRECISIONS if ENTRIES else ["default", "overall"])
def test_reduced_precision_of_products_is_kept_out(setting, monkeypatch):
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    expected = nearest_neighbours(x, x, 4, torch.arange(64))
    seen = []
    addmm = torch.addmm

    def watched(*args, **options):
        seen.append((torch.get_float32_matmul_precision(), *(entry.fp32_precision for entry in ENTRIES)))
        return addmm(*args, **options)

    for change in PRECISIONS[setting]:
        change()
    before = precisions()
    monkeypatch.setattr(torch, "addmm", watched)
    torch.testing.assert_close(nearest_neighbours(x, x, 4, torch.arange(64)), expected, rtol=0, atol=0)
    assert {first for first, *_ in seen} == {"highest"}
    assert {entry for _, *entries in seen for entry in entries} <= {"ieee", "none"}
    assert precisions() == before

    def fail(*_, **__):
        raise MemoryError("no room")

    monkeypatch.setattr(torch, "addmm", fail)
    with pytest.raises(MemoryError, match="no room"):
        nearest_neighbours(x, x, 4, torch.arange(64))
    assert precisions() == before


@pytest.mark.usefixtures("precision_put_back")
@pytest.mark.skipif(not ENTRIES, reason="PyTorch has it from 2.9 on")
@pytest.mark.parametrize("setting", ["cuda", "cpu", "inherited"])
@pytest.mark.parametrize(
    "loss",
    [
        lambda x: LDReg(k=8)(x),
        lambda x: KoLeo()(x),
        lambda x: geometric_mean_lid(x, k=8),
        lambda x: two_nn(x) + 0 * x.sum(),
    ],
)
def test_all_that_searches_neighbours_runs_with_the_newer_interface(setting, loss):
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    expected = loss(x)
    (gradient,) = torch.autograd.grad(expected, x)
    for change in PRECISIONS[setting]:
        change()
    found = loss(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    torch.testing.assert_close(torch.autograd.grad(found, x)[0], gradient, rtol=1e-6, atol=0)


class Products(TorchDispatchMode):
    """Collects the precisions in which float32 matrix products run."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in ("mm", "bmm", "addmm", "baddbmm") and args[0].dtype == torch.float32:
            self.seen.append(torch.get_float32_matmul_precision())
        return function(*args, **(kwargs or {}))


SLICES = torch.nn.functional.normalize(torch.randn(12, 20, generator=torch.Generator().manual_seed(1)), dim=0)
MULTIPLIED = {
    "whitening": lambda x: functional.zca_whiten(x, 3).sin().sum(),
    "whitening in float32": lambda x: functional.zca_whiten(x, 3, float64=False).sin().sum(),
    "eigenvalues in float32": lambda x: functional.wasserstein_uniformity(x, float64=False),
    "sigreg": lambda x: functional.sigreg_loss(x, SLICES),
    "visreg": lambda x: functional.visreg_loss(x, SLICES),
    "mutual information": lambda x: functional.matrix_mutual_information(x, x.sin()),
    "nt-xent": lambda x: functional.ntxent_loss(x, x.sin()),
    "vicreg": lambda x: functional.vicreg_loss(x, x.sin()),
    "directclr": lambda x: functional.directclr_loss(x, x.sin(), dim=5),
    "decorrelation": functional.decorrelation_loss,
    "uniformity": functional.uniformity,
    "self-clustering": functional.self_clustering,
}


@pytest.mark.usefixtures("precision_put_back")
@pytest.mark.parametrize("name", MULTIPLIED)
def test_losses_multiply_in_full_precision(name):
    """The precision is read where each product runs, as not every processor has a lower one."""
    results = []
    for precision in ("highest", "medium"):
        torch.set_float32_matmul_precision(precision)
        x = torch.randn(40, 12, generator=torch.Generator().manual_seed(0)).requires_grad_()
        with Products() as products:
            loss = MULTIPLIED[name](x)
            results.append((loss, *torch.autograd.grad(loss, x)))
        assert products.seen and set(products.seen) == {"highest"}
        assert torch.get_float32_matmul_precision() == precision
    torch.testing.assert_close(*results)


class Elsewhere(torch.Tensor):
    """A tensor that says it is on a device without float64, and holds its numbers on the CPU.

    MPS is not at hand, and a build without it knows no such device: "meta" lends its name.
    """

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, inner.stride(), inner.storage_offset(), dtype=inner.dtype, device="meta"
        )

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise AssertionError(f"{function} outside of the device")


class Device(TorchDispatchMode):
    """Computes for it, and refuses what MPS refuses: float64, and tensors of two devices."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.dim()]
        there = any(isinstance(x, Elsewhere) for x in tree_leaves((args, kwargs)))
        assert len({isinstance(x, Elsewhere) for x in tensors}) < 2, f"{function} of two devices"
        wanted = kwargs.get("device")
        if wanted is not None:
            kwargs["device"], there = "cpu", torch.device(wanted).type == "meta"
        result = function(*tree_map(self.unwrap, args), **tree_map(self.unwrap, kwargs))
        return tree_map(self.wrap, result) if there else result

    def unwrap(self, x):
        return x.inner if isinstance(x, Elsewhere) else x

    def wrap(self, x):
        if isinstance(x, torch.Tensor) and x.dtype == torch.float64:
            raise TypeError("Cannot convert to float64, which the device lacks.")
        return Elsewhere(x) if isinstance(x, torch.Tensor) else x


VIEWS = torch.randn(2, 48, 12, generator=torch.Generator().manual_seed(0))
WITHOUT_FLOAT64 = {
    **{name: getattr(functional, name) for name in ("effective_rank", "rankme", "alpha_req", "mean_share")},
    "lid": functional.geometric_mean_lid,
    "two_nn": functional.two_nn,
    "mst_dimension": functional.mst_dimension,
    "whitening": functional.zca_whiten,
    "correlation": functional.off_diagonal_correlation,
    "metric": lambda x: (metric := metrics.EffectiveRank(), metric.update(x), metric.compute())[-1],
    "tracker": lambda x: (tracker := DimensionalityTracker(), tracker.update(x), tracker.compute())[-1],
}


@pytest.mark.parametrize("name", WITHOUT_FLOAT64)
def test_a_device_without_float64_is_computed_for_on_the_cpu(name, capsys, monkeypatch):
    """It stands in for MPS: where float64 is asked for, and what meets what, not its own operations."""
    function = WITHOUT_FLOAT64[name]
    expected = function(VIEWS[0])
    monkeypatch.setattr(_precision, "WITHOUT_FLOAT64", {"meta"})
    _precision._warn_once.cache_clear()
    with Device():
        x = VIEWS[0].to("meta")
        assert x.device.type == "meta"
        with pytest.raises(TypeError, match="float64"):
            x.double()
        found = function(x)
        function(x)
        if isinstance(found, Elsewhere):
            found = found.cpu()
    torch.testing.assert_close(found, expected, equal_nan=True)
    line = "warning: meta has no float64: solo-dimreg moves its tensors to the CPU and computes there.\n"
    assert capsys.readouterr().err == line


class Pair(NamedTuple):
    values: torch.Tensor
    size: torch.Size


@pytest.mark.parametrize("by_columns", [(), (0,), (1,), (0, 1)])
def test_a_gradient_of_a_product_is_stored_like_its_factor(by_columns):
    """Compares with PyTorch's own product, whose gradient is stored like its factor too."""
    factors = [torch.randn(5, 3, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)]
    factors = [x.T.contiguous().T if i in by_columns else x for i, x in enumerate(factors)]
    factors = [x.requires_grad_() for x in factors]
    found, right = (
        torch.autograd.grad(product(*factors).square().sum(), factors)
        for product in (_precision.matmul, torch.matmul)
    )
    torch.testing.assert_close(found, right)
    assert [x.stride() for x in found] == [x.stride() for x in right] == [x.stride() for x in factors]


def test_lists_and_tuples_keep_their_types():
    x = torch.ones(2, 3, dtype=torch.bfloat16)
    given = ((x, 1), [x], Pair(x, x.shape), torch.max(x, dim=1))
    found = _precision.full_precision(lambda *each: each)(*given)
    assert [type(each) for each in found] == [type(each) for each in given]
    assert type(found[2].size) is torch.Size and found[2].values.dtype == torch.float32


TRAINED = {
    "ldreg": (LDReg(k=5), lambda m, x: m([x, x.sin()], [x.cos()])),
    "adadim": (AdaDim(), lambda m, x: m([x, x.sin()], [x[:, :5], x[:, 3:8]])),
    "dbn": (DecorrelatedBatchNorm(12, 3), lambda m, x: m(x).sin().sum()),
    "directclr": (DirectCLR(dim=5), lambda m, x: m(x, x.sin())),
    **{
        type(module).__name__: (module, lambda m, x: m([x, x.sin()]))
        for module in (
            Decorrelation(),
            EffectiveRank(),
            TREGS(),
            Uniformity(),
            KoLeo(),
            WassersteinUniformity(),
        )
    },
}


@pytest.mark.parametrize("name", TRAINED)
def test_a_loss_trains_on_a_device_without_float64(name, monkeypatch):
    module, call = TRAINED[name]
    monkeypatch.setattr(_precision, "WITHOUT_FLOAT64", {"meta"})
    expected = copy.deepcopy(module)
    x = VIEWS[0].clone().requires_grad_()
    loss = call(expected, x)
    (gradient,) = torch.autograd.grad(loss, x)
    with Device():
        there = VIEWS[0].to("meta").requires_grad_()
        found = call(copy.deepcopy(module).to("meta"), there)
        found_gradient = torch.autograd.grad(found, there)[0].cpu()
        found = found.detach().cpu()
    torch.testing.assert_close(found, loss.detach())
    torch.testing.assert_close(found_gradient, gradient)
