"""The times of losses and of whole steps on a device, beside the textbook's and the step without the term."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solo_dimreg import nn as ours
from solo_dimreg.functional import ldreg_loss, ntxent_loss, vicreg_loss
from solo_dimreg.studies.bench import TERMS, elapsed, medians
from solo_dimreg.studies.bench_cases import Loss, cases, features, textbook_ldreg
from solo_dimreg.studies.gpu.rows import Rows, main

ViewLoss = Callable[[list[Tensor], list[Tensor]], Tensor]
REPEATS = 7
LDREG = ((512, 64), (1024, 64), (2048, 64), (4096, 64), (8192, 128), (16384, 128))
WIDTH = 2048
IMAGES = 128  # of a view, halved until a step fits into the memory


def topk_ldreg(x: Tensor, k: int) -> Tensor:
    """Return the textbook's loss of LDReg with ``topk`` instead of a full sort."""
    return textbook_ldreg(x, k, lambda distances: distances.topk(k + 1, dim=1, largest=False).values)


def _milliseconds(device: torch.device, function: Callable[[], object]) -> float:
    if device.type != "cuda":
        return 1e3 * elapsed(function)
    torch.cuda.synchronize()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    function()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def peak_memory(function: Callable[[], object], device: torch.device) -> float | None:
    """Return the MiB that the function allocates at most beside what there is; None on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def _backward(loss: Loss, x: Tensor) -> None:
    torch.autograd.grad(loss(x), x)


def compare(name: str, others: dict[str, Loss], x: Tensor, rows: Rows) -> None:
    """Add a row with the time and the memory of our loss and of the others, and the ratios."""

    def measure() -> dict[str, Any]:
        values: dict[str, Any] = {}
        calls = {who: partial(_backward, loss, x) for who, loss in others.items()}
        for who in list(others)[1:]:
            try:
                calls[who]()
            except torch.OutOfMemoryError:
                values[f"{who}, MiB"] = "out of memory"
                del calls[who]
        times = dict(
            zip(calls, medians([*calls.values()], REPEATS, partial(_milliseconds, x.device)), strict=True)
        )
        for who, call in calls.items():
            values[f"{who}, ms"] = times[who]
            if (mebibytes := peak_memory(call, x.device)) is not None:
                values[f"{who}, MiB"] = mebibytes
            if who != "ours":
                values[f"{who} over ours"] = times[who] / times["ours"]
        return values

    rows.run(name, measure)


def run_losses(rows: Rows, device: torch.device) -> None:
    """Measure LDReg at growing sizes against two textbooks, and every other loss at one size."""
    part = 1 if device.type == "cuda" else 8
    for b, k in LDREG:
        if part > 1 and b > 4096:
            continue
        x = features((b // part, WIDTH // part)).to(device).requires_grad_()
        losses: dict[str, Loss] = {
            "ours": partial(ldreg_loss, k=k // part),
            "sort": partial(textbook_ldreg, k=k // part),
            "topk": partial(topk_ldreg, k=k // part),
        }
        compare(f"LDReg, {b // part} x {WIDTH // part}, k = {k // part}", losses, x, rows)
    for case in cases():
        if not case.name.startswith("LDReg"):
            x = features(case.shape).to(device).requires_grad_()
            name = f"{case.name}, {' x '.join(map(str, case.shape))}"
            compare(name, {"ours": case.ours, "textbook": case.textbook}, x, rows)


class Step:
    """A step of SGD of a backbone of timm and a projector, in bfloat16 by autocast.

    The input is two views of random images, ``size`` high and wide, in ``channels_last``.
    """

    def __init__(self, backbone: str, device: torch.device, images: int, size: int, lr: float = 1e-3) -> None:
        import timm

        torch.manual_seed(0)
        self.device = device
        backbone_ = timm.create_model(backbone, num_classes=0).to(device)
        self.backbone: Any = backbone_.to(memory_format=torch.channels_last)
        clean = torch.rand(images, 3, size, size, device=device)
        self.views = [
            (clean + 0.1 * torch.randn_like(clean)).contiguous(memory_format=torch.channels_last)
            for _ in range(2)
        ]
        with torch.no_grad():
            self.width = width = self.backbone(self.views[0][:2]).shape[1]
        self.projector = nn.Sequential(
            nn.Linear(width, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, 256),
        ).to(device)
        parameters = [*self.backbone.parameters(), *self.projector.parameters()]
        self.optimizer = torch.optim.SGD(parameters, lr=lr, momentum=0.9)

    def __call__(self, loss: ViewLoss) -> Tensor:
        """Make one step and return its loss, without waiting for it."""
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16):
            r = [self.backbone(view) for view in self.views]
            z = [self.projector(each) for each in r]
            total = loss(r, z)
        total.backward()
        self.optimizer.step()
        return total.detach()


def small_backbone() -> str:
    """Return the name of a network of timm that a CPU trains in seconds."""
    import timm

    return "test_resnet" if timm.is_model("test_resnet") else "resnet18"


def step_losses(width: int, device: torch.device) -> dict[str, ViewLoss]:
    """Return the losses of the methods, and NT-Xent with each regularizer, of ``width`` features."""
    adadim, lejepa = ours.AdaDim().to(device), ours.LeJEPA()
    direct, dbn = ours.DirectCLR(dim=min(360, width)), ours.ShuffledDBN(256, "auto").to(device)
    losses: dict[str, ViewLoss] = {
        "simclr": lambda r, z: ntxent_loss(z[0], z[1]),
        "vicreg": lambda r, z: vicreg_loss(z[0], z[1]),
        "adadim": lambda r, z: adadim(r, z),
        "directclr": lambda r, z: direct(*r),
        "lejepa": lambda r, z: lejepa(z),
        "shuffled_dbn": lambda r, z: F.mse_loss(dbn(z[0]), dbn(z[1])),
    }
    for name, (term, of_embeddings) in TERMS.items():
        losses[f"simclr + {name}"] = partial(_with_term, term().to(device), of_embeddings)
    return losses


def _with_term(module: nn.Module, of_embeddings: bool, r: list[Tensor], z: list[Tensor]) -> Tensor:
    return ntxent_loss(z[0], z[1]) + 0.01 * module(z if of_embeddings else r)


def run_steps(rows: Rows, device: torch.device) -> None:
    """Measure whole steps with each term and method, as ratios to the step of SimCLR."""
    backbone, size, images = (
        ("resnet50", 224, IMAGES) if device.type == "cuda" else (small_backbone(), 64, 16)
    )
    step = _fitting_step(backbone, device, images, size)
    losses = step_losses(step.width, device)
    plain = partial(step, losses.pop("simclr"))
    what = f"{backbone}, 2 x {len(step.views[0])} images of {size} px, bf16"
    for name, loss in losses.items():

        def measure(loss: ViewLoss = loss) -> dict[str, Any]:
            without, own = medians([plain, partial(step, loss)], REPEATS, partial(_milliseconds, device))
            return {"step, ms": own, "simclr, ms": without, "over simclr": own / without}

        rows.run(f"{name}: {what}", measure)


def _fitting_step(backbone: str, device: torch.device, images: int, size: int) -> Step:
    """Return the step with the most images whose two views fit into the memory."""
    while True:
        try:
            step = Step(backbone, device, images, size)
            step(lambda r, z: ntxent_loss(z[0], z[1]))
            return step
        except torch.OutOfMemoryError:
            if images <= 16:
                raise
        torch.cuda.empty_cache()
        images //= 2


SECTIONS = {"losses": run_losses, "steps": run_steps}

if __name__ == "__main__":
    main(SECTIONS)
