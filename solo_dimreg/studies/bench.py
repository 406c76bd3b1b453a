"""Measure what the add-on costs: every number is a ratio of medians, measured in turn in one process.

Each function is compared with its textbook formulation, which must give the same loss and gradient.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solo_dimreg import nn as ours
from solo_dimreg.distributed import shared_gathers
from solo_dimreg.functional import directclr_loss
from solo_dimreg.functional.adadim import ntxent_loss, vicreg_loss
from solo_dimreg.studies.bench_cases import Case, Loss, cases, features

AGREEMENT = 1e-4  # relative tolerance of value and gradient, in float64
IMAGES_OF_AN_EPOCH = 1437  # the digits
STEP = 256


@dataclass(frozen=True)
class Cost:
    """A measured cost: the ratio of two times or of two sizes of memory, which ``of`` names.

    ``agrees`` says whether loss and gradient equal the textbook's; None without a textbook formulation.
    """

    name: str
    shape: str
    of: str
    ratio: float
    agrees: bool | None = None


def run(repeats: int, steps: bool) -> Iterator[Cost]:
    """Yield all measured costs, one at a time."""
    for case in cases():
        yield from compare(case, repeats)
    if steps:
        yield from compare_steps(repeats)


def compare(case: Case, repeats: int) -> Iterator[Cost]:
    """Yield the time and the memory of a case's forward and backward pass against its textbook form."""
    x = features(case.shape)
    shape = " x ".join(map(str, case.shape))
    agrees = _agree(*(_value_and_gradient(each, x.double()) for each in (case.ours, case.textbook)))
    functions = [partial(_value_and_gradient, each, x) for each in (case.textbook, case.ours)]
    textbook, ours, product = medians([*functions, lambda: x @ x.T], repeats)
    yield Cost(case.name, shape, "textbook's time over ours", textbook / ours, agrees)
    if case.name.startswith("LDReg"):
        yield Cost(case.name, shape, "ours over one x @ x.T", ours / product)
        memory = [extra_memory(case.name, case.shape, which) for which in ("ours", "textbook")]
        yield Cost(case.name, shape, "our extra memory over the textbook's", memory[0] / max(memory[1], 1))


def elapsed(function: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def medians(
    functions: Sequence[Callable[[], object]],
    repeats: int,
    time_of: Callable[[Callable[[], object]], float] = elapsed,
) -> list[float]:
    """Return each function's median time over rounds in which all functions take their turn."""
    for function in functions:
        function()
    rounds = [[*map(time_of, functions)] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def _value_and_gradient(loss: Loss, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    value = loss(x)
    return value.detach(), torch.autograd.grad(value, x)[0]


def _agree(ours: tuple[Tensor, Tensor], textbook: tuple[Tensor, Tensor]) -> bool:
    # In float64: rounding in float32 can swap two almost equal distances or projections.
    value, gradient = (a - b for a, b in zip(ours, textbook, strict=True))
    near = gradient.norm(dim=1) <= AGREEMENT * textbook[1].norm(dim=1)
    return abs(float(value)) <= AGREEMENT * abs(float(textbook[0])) and bool(near.all())


def extra_memory(name: str, shape: tuple[int, int], which: str) -> int:
    """Return the bytes by which a new process grows at most in one forward and backward pass of a case."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_growth, name, shape, which).result()


def _growth(name: str, shape: tuple[int, int], which: str) -> int:
    (case,) = (case for case in cases() if (case.name, case.shape) == (name, shape))
    loss = getattr(case, which)
    _value_and_gradient(loss, features((130, 64)))  # libraries allocate memory at their first call
    x = features(case.shape)
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before = _memory("VmRSS")
    _value_and_gradient(loss, x)
    return _memory("VmHWM") - before


def _memory(kind: str) -> int:
    # getrusage would include the memory of the parent process.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(kind))
    return int(line.split()[1]) * 1024


def _network() -> Callable[[], object]:
    """Return a pass of a ResNet-18 on two views of 256 noise images, forward and backward, without a loss."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    backbone = resnet18()
    backbone.fc = nn.Identity()  # type: ignore[assignment]
    projector = nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 256))
    views = torch.randn(2, STEP, 3, 32, 32)

    def both() -> None:
        for view in views:
            projector(backbone(view)).sum().backward()

    return both


# The regularizers, and whether their input is the embeddings.
TERMS: dict[str, tuple[type[nn.Module], bool]] = {
    "ldreg": (ours.LDReg, False),
    "decorrelation": (ours.Decorrelation, True),
    "effective_rank": (ours.EffectiveRank, False),
    "koleo": (ours.KoLeo, False),
    "uniformity": (ours.Uniformity, True),
    "wasserstein_uniformity": (ours.WassersteinUniformity, True),
    "sigreg": (ours.SIGReg, True),
    "visreg": (ours.VISReg, True),
    "t_regs": (ours.TREGS, True),
}


def _loss_of(term: type[nn.Module], embeddings: bool) -> Callable[[list[Tensor], list[Tensor]], Tensor]:
    regularizer = term()
    return lambda r, z: regularizer(z if embeddings else r)


def compare_steps(repeats: int) -> Iterator[Cost]:
    """Yield what a term, a method and the monitor add to a whole step, against the nearest baseline.

    Network and losses are measured separately, because the noise of a step is larger than the cost of most
    terms.
    """
    adadim, direct = ours.AdaDim(), ours.DirectCLR(dim=90)
    bn, whitened = nn.BatchNorm1d(256, affine=False), ours.ShuffledDBN(256, 8)
    losses: dict[str, Callable[[list[Tensor], list[Tensor]], Tensor]] = {
        "simclr": lambda r, z: ntxent_loss(z[0], z[1]),
        "vicreg": lambda r, z: vicreg_loss(z[0], z[1]),
        "adadim": lambda r, z: adadim(r, z),
        "infonce": lambda r, z: directclr_loss(r[0], r[1], dim=512),
        "directclr": lambda r, z: direct(r[0], r[1]),
        "bn": lambda r, z: F.mse_loss(bn(z[0]), bn(z[1])),
        "shuffled_dbn": lambda r, z: F.mse_loss(whitened(z[0]), whitened(z[1])),
        **{name: _loss_of(*term) for name, term in TERMS.items()},
    }
    r = [features((STEP, 512), seed).requires_grad_() for seed in (0, 1)]
    z = [features((STEP, 256), seed).requires_grad_() for seed in (2, 3)]

    def step(loss: Callable[[list[Tensor], list[Tensor]], Tensor]) -> None:
        with shared_gathers():
            loss(r, z).backward()

    runs: list[Callable[[], object]] = [_network(), _monitor()]
    runs += [partial(step, loss) for loss in losses.values()]
    network, monitor, *others = medians(runs, repeats)
    seconds = dict(zip(losses, others, strict=True))
    shape = f"ResNet-18, {STEP} x 32 x 32"
    pairs = [(seconds["simclr"] + seconds[term], term, "simclr") for term in TERMS]
    methods = {"adadim": "vicreg", "directclr": "infonce", "shuffled_dbn": "bn"}
    pairs += [(seconds[method], method, baseline) for method, baseline in methods.items()]
    for loss, name, baseline in pairs:
        ratio = (network + loss) / (network + seconds[baseline])
        yield Cost(name, shape, f"time of a step over that of {baseline}", ratio)
    epoch = (network + seconds["simclr"]) * IMAGES_OF_AN_EPOCH / STEP
    of = f"time over that of an epoch of {IMAGES_OF_AN_EPOCH} images"
    yield Cost("monitor", shape, of, monitor / epoch)


def _monitor() -> Callable[[], object]:
    from solo_dimreg.config.blocks import MonitorSettings
    from solo_dimreg.monitor.buffer import measure

    # Two views of features and embeddings.
    usual = MonitorSettings()
    r = [features((usual.max_samples, 512), seed) for seed in (0, 1)]
    z = [features((usual.max_samples, 256), seed) for seed in (2, 3)]
    return lambda: measure(usual.metrics, r, z)


def describe_machine() -> dict[str, str | int]:
    """Return the processor, the instruction set, the threads and the version of torch.

    The ratios depend on them too.
    """
    return {
        "machine": f"{platform.system()} {platform.machine()}",
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
