"""The checks of the losses on a GPU, and on the CPU what of them a CPU can run.

``pytest -m gpu`` runs them where there is CUDA. ``./reproduce.sh gpu`` runs the same without pytest.
"""

from __future__ import annotations

import pytest
import torch
from gpu import checks
from support import most_slow
from torch._subclasses.fake_tensor import FakeTensorMode

from solo_dimreg.studies import bench_cases

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)
on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]
# Few of a matrix on the CPU, where other tests look at the same functions.
KEPT = ("LDReg", "SIGReg", "DecorrelatedBatchNorm")
DEVICES = [pytest.param(CPU, id="cpu"), pytest.param(CUDA, id="cuda", marks=on_gpu)]
devices = pytest.mark.parametrize("device", DEVICES)
cuda = pytest.mark.parametrize("device", DEVICES[1:])
losses = pytest.mark.parametrize("name", most_slow(checks.LOSSES, keep=KEPT))


def done(check, *arguments):
    try:
        return check(*arguments)
    except checks.CannotRun as reason:
        pytest.skip(str(reason))


@devices
@losses
def test_value_and_gradient(name, device):
    done(checks.check_value, name, device)


@devices
@pytest.mark.parametrize("name", [name for name, record in checks.METRICS.items() if record.function])
def test_metric(name, device):
    done(checks.check_metric, name, device)


@devices
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@losses
def test_mixed_precision(name, dtype, device):
    done(checks.check_amp, name, dtype, device)


@devices
@losses
def test_tensor_float(name, device):
    done(checks.check_tf32, name, device)


@devices
def test_channels_last(device):
    done(checks.check_channels_last, "LDReg", device)


@devices
@losses
def test_no_wait(name, device):
    done(checks.check_waits, name, device)


@cuda
@losses
def test_graph(name, device):
    done(checks.check_graph, name, device)


@cuda
@pytest.mark.parametrize("name", checks.MODULES)
def test_compiled(name, device):
    done(checks.check_compiled, name, device, "inductor")


@pytest.mark.slow
def test_compiled_into_one_graph():
    done(checks.check_compiled, "LDReg", CPU, "aot_eager")


@pytest.mark.slow
def test_two_processes_on_the_cpu():
    done(checks.check_processes, 2, "gloo", CPU)


@cuda
@pytest.mark.parametrize(("size", "backend"), [(1, "nccl"), (2, "nccl"), (2, "gloo")])
def test_processes(size, backend, device):
    done(checks.check_processes, size, backend, device)


def forget_directions():
    """Directions are made once for a device, and those of a fake device are fake."""
    checks.slices.cache_clear()
    bench_cases._directions.cache_clear()


# The geometric mean LID counts equal rows once, and a fake tensor does not tell how many there are.
@pytest.mark.parametrize("name", [name for name in checks.LOSSES if name != "geometric mean LID"])
def test_all_tensors_are_on_the_device(name):
    """A tensor that a loss makes on the CPU is an error beside one of another device, which needs no GPU."""
    forget_directions()
    with FakeTensorMode():
        x = torch.empty(checks.SHAPE, device="cuda")
        assert checks.LOSSES[name](x.device)(x).device.type == "cuda"
    forget_directions()
    x = torch.empty(checks.SHAPE, device="meta", requires_grad=True)
    (gradient,) = torch.autograd.grad(checks.LOSSES[name](x.device)(x), x)
    assert gradient.device.type == "meta" and gradient.shape == x.shape


def test_a_wrong_gradient_is_found(monkeypatch):
    """The checks fail where the device is not right."""

    class Scaled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * (1.001 if gradient.dtype == torch.float32 else 1)

    right = checks.LOSSES["uniformity"](CPU)

    def wrong_value(x):
        return right(x) * (1.0001 if x.dtype == torch.float32 else 1)

    monkeypatch.setitem(checks.LOSSES, "wrong", lambda _: lambda x: right(Scaled.apply(x)))
    with pytest.raises(AssertionError, match="the gradient is off by"):
        checks.check_value("wrong", CPU)
    monkeypatch.setitem(checks.LOSSES, "wrong", lambda _: wrong_value)
    with pytest.raises(AssertionError, match="the value is off by"):
        checks.check_value("wrong", CPU)
    monkeypatch.setitem(checks.LOSSES, "LDReg", lambda _: lambda x: right(x) * float(x.detach().sum()))
    with pytest.raises(AssertionError, match="1 waits are counted"):
        checks.check_waits("LDReg", CPU)
