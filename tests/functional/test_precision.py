"""Full precision, whatever the user allows elsewhere: of matrix products, and on devices without float64."""

import pytest
import torch

from solo_dimreg import KoLeo, LDReg
from solo_dimreg.functional import geometric_mean_lid, two_nn
from solo_dimreg.functional.neighbours import nearest

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
    """What both interfaces say, and whether the entries still follow the general one."""
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
    expected = nearest(x, x, 4, torch.arange(64))
    seen = []
    addmm = torch.addmm

    def watched(*args, **options):
        seen.append((torch.get_float32_matmul_precision(), *(entry.fp32_precision for entry in ENTRIES)))
        return addmm(*args, **options)

    for change in PRECISIONS[setting]:
        change()
    before = precisions()
    monkeypatch.setattr(torch, "addmm", watched)
    torch.testing.assert_close(nearest(x, x, 4, torch.arange(64)), expected, rtol=0, atol=0)
    assert set(seen) == {("highest", *("ieee" for _ in ENTRIES))}
    assert precisions() == before

    def fail(*_, **__):
        raise MemoryError("no room")

    monkeypatch.setattr(torch, "addmm", fail)
    with pytest.raises(MemoryError, match="no room"):
        nearest(x, x, 4, torch.arange(64))
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
