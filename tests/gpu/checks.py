"""The losses on a device against float64 on the CPU, and under all that a training on a GPU switches on.

Every check takes a device, so that a CPU runs what it can. They need torch, SciPy and timm alone: the command
``./reproduce.sh gpu`` calls them without pytest.
"""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

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
    ShuffledDBN,
    SIGReg,
    Uniformity,
    VISReg,
    WassersteinUniformity,
)
from solo_dimreg import functional as F
from solo_dimreg.distributed import rank, world_size
from solo_dimreg.functional import neighbours
from solo_dimreg.metrics.registry import METRICS, ROWS, TOKENS
from solo_dimreg.nn import _slices
from solo_dimreg.studies.bench_cases import directions, features
from solo_dimreg.studies.gpu.rows import CannotRun, Rows, main
from solo_dimreg.studies.launches import count

CPU = torch.device("cpu")
SHAPE = (96, 48)
VALUE, GRADIENT = 1e-5, 1e-4
# Where float32 itself resolves less: roots of small eigenvalues, and sums that cancel.
LOOSE = {"wasserstein uniformity": 10, "WassersteinUniformity": 10, "matrix mutual information": 10}
Loss = Callable[[Tensor], Tensor]


def weighted(z: Tensor) -> Tensor:
    """A scalar that weights all rows and columns differently."""
    rows, columns = (torch.arange(1.0, n + 1, device=z.device, dtype=z.dtype) / n for n in z.shape)
    return (z * columns).sin().mul(rows[:, None]).mean()


@functools.cache
def slices(width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """64 unit vectors as columns, made once: a copy to the device would wait for it."""
    made = directions(torch.empty(1, width))[:, :64].to(device)
    return made.to(torch.promote_types(dtype, torch.float32))


def sliced(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[torch.device], Loss]:
    return lambda _: lambda x: loss(x, slices(x.shape[1], x.device, x.dtype))


def of_views(module: Callable[[], nn.Module], third: bool = False) -> Callable[[torch.device], Loss]:
    """A new module on two views, and on a third as those of a momentum encoder."""

    def make(device: torch.device) -> Loss:
        term = module().to(device)

        def loss(x: Tensor) -> Tensor:
            views = [x, x.flip(1)]  # flips and parts, which half precision does not round
            return term(views, [x.roll(5, 1)]) if third else term(views)

        return loss

    return make


def layer(module: Callable[[], nn.Module]) -> Callable[[torch.device], Loss]:
    def make(device: torch.device) -> Loss:
        whitening = module().to(device)
        return lambda x: weighted(whitening(x))

    return make


def adadim(**options: Any) -> Callable[[torch.device], Loss]:
    def make(device: torch.device) -> Loss:
        module = AdaDim(**options).to(device)
        return lambda x: module([x, x.flip(1)], [x[:, :16], x[:, 8:24]])

    return make


# Each makes a loss of features (B, D) on a device, with new state.
LOSSES: dict[str, Callable[[torch.device], Loss]] = {
    "LID": lambda _: lambda x: F.local_intrinsic_dimensionality(x, k=16).log().mean(),
    "LID, MLE": lambda _: lambda x: F.local_intrinsic_dimensionality(x, k=16, estimator="mle").log().mean(),
    "geometric mean LID": lambda _: lambda x: F.geometric_mean_lid(x, k=16),
    "ldreg": lambda _: lambda x: F.ldreg_loss(x, k=16),
    "koleo": lambda _: F.koleo_loss,
    "LDReg": of_views(lambda: LDReg(k=16)),
    "LDReg, momentum": of_views(lambda: LDReg(k=16, norm="l2"), third=True),
    "KoLeo": of_views(KoLeo),
    "directclr": lambda _: lambda x: F.directclr_loss(x, x.flip(1), dim=20),
    "info_nce": lambda _: lambda x: F.info_nce_loss(x, x.flip(1)),
    "ntxent": lambda _: lambda x: F.ntxent_loss(x, x.flip(1)),
    "vicreg": lambda _: lambda x: F.vicreg_loss(x, x.flip(1)),
    "decorrelation": lambda _: F.decorrelation_loss,
    "uniformity": lambda _: F.uniformity,
    "alignment": lambda _: lambda x: F.alignment(x, x.flip(1)),
    "sigreg": sliced(F.sigreg_loss),
    "visreg": sliced(F.visreg_loss),
    "t_reg": lambda _: F.t_reg_loss,
    "effective rank": lambda _: lambda x: F.effective_rank(x, center=True),
    "rankme": lambda _: F.rankme,
    "lidar": lambda _: lambda x: F.lidar(x, samples_per_class=2),
    "matrix entropy": lambda _: F.matrix_entropy,
    "matrix entropy, order 1": lambda _: lambda x: F.matrix_entropy(x, order=1),
    "matrix mutual information": lambda _: lambda x: F.matrix_mutual_information(x, x[:, :8]),
    "wasserstein uniformity": lambda _: F.wasserstein_uniformity,
    "ZCA whitening": lambda _: lambda x: weighted(F.zca_whiten(x, num_groups=4, eps=1e-3)),
    "DirectCLR": lambda _: lambda x: DirectCLR(dim=20)(x, x.flip(1)),
    "Decorrelation": of_views(Decorrelation),
    "Uniformity": of_views(Uniformity),
    "SIGReg": of_views(lambda: SIGReg(64)),
    "LeJEPA": of_views(lambda: LeJEPA(num_slices=64), third=True),
    "VISReg": of_views(lambda: VISReg(64)),
    "TREGS": of_views(TREGS),
    "EffectiveRank": of_views(EffectiveRank),
    "WassersteinUniformity": of_views(WassersteinUniformity),
    "AdaDim": adadim(),
    "AdaDim, order 1": adadim(gamma=1.0, beta_schedule="constant", order=1),
    "DecorrelatedBatchNorm": layer(lambda: DecorrelatedBatchNorm(SHAPE[1], 4, eps=1e-3)),
    "ShuffledDBN": layer(lambda: ShuffledDBN(SHAPE[1], 1, eps=1e-3)),
}
# Their search promises full float32 products, and no wait.
NEIGHBOURS = ("LID", "LID, MLE", "ldreg", "koleo", "LDReg", "LDReg, momentum", "KoLeo")
MODULES = [name for name in LOSSES if name[0].isupper() and name not in ("LID", "LID, MLE", "ZCA whitening")]


@contextmanager
def same_slices(device: torch.device) -> Iterator[None]:
    """The random directions of the device also on the CPU, whose generator draws others."""
    original = _slices.unit_slices

    def drawn(x: Tensor, seed: Tensor, number: int) -> Tensor:
        made = original(torch.empty(x.shape, device=device), seed, number)
        return made.to(x)

    _slices.unit_slices = drawn  # type: ignore[assignment]
    try:
        yield
    finally:
        _slices.unit_slices = original


def value_and_gradient(loss: Loss, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    value = loss(x)
    return value.detach(), torch.autograd.grad(value, x)[0]


def differences(found: tuple[Tensor, Tensor], truth: tuple[Tensor, Tensor]) -> dict[str, float]:
    """The relative errors of value and gradient; a gradient by its norm."""
    value, gradient = (each.detach().cpu().double() for each in found)
    true_value, true_gradient = (each.detach().cpu().double() for each in truth)
    return {
        "value": float((value - true_value).abs() / true_value.abs()),
        "gradient": float((gradient - true_gradient).norm() / true_gradient.norm()),
    }


def check_errors(errors: dict[str, float], value: float, gradient: float) -> dict[str, float]:
    assert errors["value"] <= value, f"the value is off by {errors['value']:.1e}, more than {value:.0e}"
    assert errors["gradient"] <= gradient, (
        f"the gradient is off by {errors['gradient']:.1e}, more than {gradient:.0e}"
    )
    return errors


def check_value(name: str, device: torch.device) -> dict[str, float]:
    """Value and gradient in float32 on the device are those of float64 on the CPU."""
    x, times = features(SHAPE), LOOSE.get(name, 1)
    with same_slices(device):
        found = value_and_gradient(LOSSES[name](device), x.to(device))
        truth = value_and_gradient(LOSSES[name](CPU), x.double())
    assert found[0].device.type == found[1].device.type == device.type
    return check_errors(differences(found, truth), times * VALUE, times * GRADIENT)


def check_metric(name: str, device: torch.device) -> dict[str, float]:
    """A metric in float32 on the device is the one in float64 on the CPU."""
    record = METRICS[name]
    assert record.function is not None
    one = record.inputs in (ROWS, TOKENS)
    inputs = [features((256, 64), seed) for seed in ((0,) if one else (0, 1))]
    if record.inputs == TOKENS:
        inputs = [inputs[0].unflatten(0, (16, 16))]
    found = float(record.function(*(each.to(device) for each in inputs)))
    truth = float(record.function(*(each.double() for each in inputs)))
    if math.isnan(truth) and math.isnan(found):
        raise CannotRun("needs more features than these: not a number, as on the CPU")
    error = abs(found - truth) / abs(truth)
    assert error <= 1e-4, f"{found} on the device, {truth} in float64"
    return {"value": error}


def check_amp(name: str, dtype: torch.dtype, device: torch.device) -> dict[str, float]:
    """In half precision, autocast and a GradScaler give loss and gradient of the rounded features."""
    x = features(SHAPE).to(dtype).float()
    moved = nn.Parameter(x.to(device).clone())
    optimizer = torch.optim.SGD([moved], lr=1e-3)
    scaler = torch.amp.GradScaler(device.type, init_scale=2.0**8, enabled=dtype == torch.float16)
    loss = LOSSES[name](device)
    with same_slices(device):
        with torch.autocast(device.type, dtype):
            value = loss(moved.to(dtype))
        assert value.isfinite(), f"the loss is {float(value)}"
        scaler.scale(value).backward()
        scaler.unscale_(optimizer)
        gradient = moved.grad
        assert gradient is not None
        errors = differences((value, gradient), value_and_gradient(LOSSES[name](CPU), x.double()))
    before = moved.detach().clone()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() in (1.0, 2.0**8), "the step was skipped"
    assert not torch.equal(before, moved), "the step changed nothing"
    # The loss may be rounded once; the gradient is, on its way to the features.
    eps = torch.finfo(dtype).eps
    return check_errors(errors, eps, 2 * eps)


@contextmanager
def tensor_float() -> Iterator[None]:
    """TensorFloat32 for products, or what a CPU has instead."""
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


def check_tf32(name: str, device: torch.device) -> dict[str, float]:
    """TensorFloat32 leaves products in float32 that promise it; the error of the others is measured."""
    # Away from 0, where products in TensorFloat32 would lose the distances.
    x = features(SHAPE) + 3
    loss, truth = LOSSES[name](device), LOSSES[name](CPU)
    with same_slices(device):
        expected = value_and_gradient(truth, x.double())
        with tensor_float():
            on = x.to(device)
            plain = (on @ on.T).cpu().double()
            errors = differences(value_and_gradient(loss, on), expected)
    if name in NEIGHBOURS:
        check_errors(errors, VALUE, GRADIENT)
    true_products = x.double() @ x.double().T
    return {**errors, "plain product": float((plain - true_products).norm() / true_products.norm())}


@contextmanager
def shaped_for_cuda() -> Iterator[None]:
    """The search that a GPU runs, on the CPU."""
    neighbours.SHAPED_FOR_CUDA = True
    try:
        yield
    finally:
        neighbours.SHAPED_FOR_CUDA = False


def counted_waits(name: str) -> int:
    with shaped_for_cuda():
        return count(name, "ours", LOSSES[name](CPU), [features(SHAPE)]).waits


def check_waits(name: str, device: torch.device) -> dict[str, int]:
    """A forward and a backward pass do not wait for the device, where ``bench --launches`` counts no wait."""
    counted = counted_waits(name)
    assert not (counted and name in NEIGHBOURS), f"{counted} waits are counted"
    if counted:
        raise CannotRun(f"waits {counted} times, as counted: for a decomposition or a tree")
    if name in ("t_reg", "TREGS"):
        raise CannotRun("the tree is computed on the CPU")
    loss, x = LOSSES[name](device), features(SHAPE).to(device).requires_grad_()
    torch.autograd.grad(loss(x), x)  # what is made once is there at the second call
    if device.type != "cuda":
        return {"waits": counted}
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.autograd.grad(loss(x), x)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return {"waits": counted}


def check_graph(name: str, device: torch.device) -> dict[str, float]:
    """Forward and backward captured in a CUDA graph give, replayed on other features, the same as without."""
    if device.type != "cuda":
        raise CannotRun("only CUDA has graphs")
    loss, x = LOSSES[name](device), features(SHAPE).to(device).requires_grad_()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            torch.autograd.grad(loss(x), x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            value = loss(x)
            (gradient,) = torch.autograd.grad(value, x)
    except Exception as error:
        torch.cuda.synchronize()
        if name in NEIGHBOURS:
            raise
        raise CannotRun(f"cannot be captured: {' '.join(str(error).split())[:120]}") from error
    other = features(SHAPE, seed=1)
    with torch.no_grad():
        x.copy_(other)
    graph.replay()
    torch.cuda.synchronize()
    expected = value_and_gradient(LOSSES[name](device), other.to(device))
    errors = differences((value.detach(), gradient), expected)
    if name in ("SIGReg", "LeJEPA", "VISReg", "AdaDim", "AdaDim, order 1"):
        return errors  # with the directions, or the average, of the captured step
    return check_errors(errors, VALUE, GRADIENT)


def check_compiled(name: str, device: torch.device, backend: str) -> dict[str, float]:
    """Compiled into one graph, a loss gives the same value and gradient."""
    torch.compiler.reset()
    x = features(SHAPE).to(device)
    compiled = torch.compile(LOSSES[name](device), fullgraph=True, backend=backend)
    errors = differences(value_and_gradient(compiled, x), value_and_gradient(LOSSES[name](device), x))
    times = LOOSE.get(name, 1)
    return check_errors(errors, times * VALUE, times * GRADIENT)


def small_backbone() -> nn.Module:
    import timm

    torch.manual_seed(0)
    name = "test_resnet" if timm.is_model("test_resnet") else "resnet18"
    return timm.create_model(name, num_classes=0)


def check_channels_last(name: str, device: torch.device) -> dict[str, float]:
    """The gradient of a backbone in channels_last is the one in the usual memory format."""
    images = torch.rand(32, 3, 64, 64, generator=torch.Generator().manual_seed(0)).to(device)
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        backbone = small_backbone().to(device, memory_format=memory_format)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            loss = LOSSES[name](device)(backbone(images.contiguous(memory_format=memory_format)))
            gradients = torch.autograd.grad(loss, list(backbone.parameters()))
        results.append((loss.detach(), torch.cat([each.flatten() for each in gradients])))
    # Convolutions of the two formats round differently, and a network enlarges that.
    return check_errors(differences(results[1], results[0]), 1e-3, 1e-1)


class Net(nn.Module):
    """An encoder wide enough for the losses."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(12, 48), nn.Tanh())

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.encoder(x), self.encoder(x.sin())]


GATHERED: dict[str, Callable[[list[Tensor]], Tensor]] = {
    "LDReg": lambda r: LDReg(k=8)(r),
    "KoLeo": lambda r: KoLeo()(r),
    "Decorrelation": lambda r: Decorrelation()(r),
    "SIGReg": lambda r: SIGReg(64)(r),
    "AdaDim": lambda r: AdaDim()(r, [each[:, :16] for each in r]),
    "DirectCLR": lambda r: DirectCLR(dim=20)(*r),
    **({"TREGS": lambda r: TREGS()(r)} if find_spec("scipy") else {}),
}


def of_all_rows(name: str, device: torch.device, parallel: bool) -> tuple[Tensor, Tensor]:
    """The loss and the gradient of the parameters, of this process's part of 48 rows."""
    torch.manual_seed(0)
    net = Net().to(device)
    ids = [device.index] if device.type == "cuda" else None
    model = nn.parallel.DistributedDataParallel(net, device_ids=ids) if parallel else net
    loss = GATHERED[name](model(features((48, 12)).chunk(world_size())[rank()].to(device)))
    loss.backward()
    gradients = [each.grad for each in net.parameters() if each.grad is not None]
    return loss.detach().cpu(), torch.cat([each.flatten() for each in gradients]).cpu()


def gathering_process(number: int, size: int, backend: str, kind: str, folder: str) -> None:
    device = torch.device(kind, number % torch.cuda.device_count()) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(
        backend, init_method=f"file://{folder}/init", rank=number, world_size=size
    )
    results = {name: of_all_rows(name, device, True) for name in GATHERED}
    torch.save(results, f"{folder}/{number}.pt")
    torch.distributed.destroy_process_group()


def check_processes(size: int, backend: str, device: torch.device) -> dict[str, float]:
    """Several processes have the loss and gradient that one has on the concatenated batch."""
    if backend == "nccl":
        if device.type != "cuda":
            raise CannotRun("NCCL needs CUDA")
        if torch.cuda.device_count() < size:
            raise CannotRun(f"needs {size} GPUs, and there are {torch.cuda.device_count()}")
    with tempfile.TemporaryDirectory() as folder:
        arguments = (size, backend, device.type, folder)
        torch.multiprocessing.spawn(gathering_process, arguments, nprocs=size)
        found = [torch.load(f"{folder}/{number}.pt", weights_only=True) for number in range(size)]
    worst = {"value": 0.0, "gradient": 0.0}
    home = torch.device("cuda", 0) if device.type == "cuda" else device
    for name in GATHERED:
        truth = of_all_rows(name, home, False)
        for each in found:
            errors = differences(each[name], truth)
            worst = {key: max(worst[key], errors[key]) for key in worst}
            check_errors(errors, VALUE, GRADIENT)
    return worst


def run_values(rows: Rows, device: torch.device) -> None:
    for name in LOSSES:
        rows.run(name, partial(check_value, name, device))
    for name, record in METRICS.items():
        if record.function is not None:
            rows.run(f"metric {name}", partial(check_metric, name, device))


def run_training_modes(rows: Rows, device: torch.device) -> None:
    for name in LOSSES:
        for dtype in (torch.float16, torch.bfloat16):
            rows.run(f"AMP {str(dtype)[6:]}: {name}", partial(check_amp, name, dtype, device))
    for name in LOSSES:
        rows.run(f"TF32 on: {name}", partial(check_tf32, name, device))
    for name in ("LDReg", "Decorrelation", "Uniformity"):
        rows.run(f"channels_last: {name}", partial(check_channels_last, name, device))
    for name in LOSSES:
        rows.run(f"no wait: {name}", partial(check_waits, name, device))


def run_graphs(rows: Rows, device: torch.device) -> None:
    def waits(name: str) -> float:
        try:
            return counted_waits(name)
        except ModuleNotFoundError:
            return math.inf

    # Those that may fail last, since they may leave CUDA in a bad state.
    for name in sorted(LOSSES, key=lambda name: (name not in NEIGHBOURS, waits(name))):
        rows.run(f"CUDA graph: {name}", partial(check_graph, name, device))


def run_compiled(rows: Rows, device: torch.device) -> None:
    backend = "inductor" if device.type == "cuda" else "aot_eager"  # a compiler on a CPU takes a minute each
    for name in MODULES:
        rows.run(f"torch.compile, {backend}: {name}", partial(check_compiled, name, device, backend))


def run_processes(rows: Rows, device: torch.device) -> None:
    cards = torch.cuda.device_count()
    for size in sorted({1, 2, *([cards] if cards > 2 else [])}):
        rows.run(f"NCCL, {size} processes", partial(check_processes, size, "nccl", device))
    rows.run("gloo, 2 processes on one device", partial(check_processes, 2, "gloo", device))


SECTIONS = {
    "values": run_values,
    "modes": run_training_modes,
    "graphs": run_graphs,
    "compiled": run_compiled,
    "processes": run_processes,
}

if __name__ == "__main__":
    main(SECTIONS)
