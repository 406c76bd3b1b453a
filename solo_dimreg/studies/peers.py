"""Compare our losses and metrics with those of other packages: the value first, then the time."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from solo_dimreg.functional import (
    directclr_loss,
    koleo_loss,
    ntxent_loss,
    rankme,
    sigreg_loss,
    vicreg_loss,
    visreg_loss,
)
from solo_dimreg.studies.bench import medians
from solo_dimreg.studies.bench_cases import features
from solo_dimreg.studies.pages import markdown_table

SAME = 1e-4  # relative difference of values and gradients that are timed
INSTALL = {"lightly": "pip install lightly", "solo-learn": "solo-dimreg doctor says how"}


@dataclass(frozen=True)
class Peer:
    """A function of ours, of views of some shape, beside one that another package has for the same purpose.

    Attributes:
        theirs: Returns the other package's function of the views; its import, or its look-up in an older
            version, may fail.
        why: Why the values differ, if it is known that they do.
    """

    name: str
    package: str
    shape: tuple[int, int]
    ours: Callable[..., Tensor]
    theirs: Callable[[], Callable[..., Tensor]]
    views: int = 1
    why: str = ""


def compare(peer: Peer, repeats: int) -> dict[str, Any]:
    """Return how the peer's value and gradient differ from ours, and its time over ours if they do not.

    Returns:
        ``difference``: the larger of the relative differences of value and gradient, None if the peer is not
        installed. ``ratio``: its time over ours, None with the reason as ``note`` if it was not measured.
    """
    found: dict[str, Any] = {"name": peer.name, "package": peer.package}
    found |= {"shape": "x".join(map(str, peer.shape)), "difference": None, "ratio": None, "note": ""}
    try:
        theirs = peer.theirs()
    except (ImportError, AttributeError) as error:
        if isinstance(error, AttributeError) or "." in (error.name or ""):
            note = f"the installed {peer.package} lacks it ({error}); a newer one may have it"
            return found | {"note": note}
        how = f": {INSTALL[peer.package]}" if peer.package in INSTALL else ""
        return found | {"note": f"{peer.package} is not installed{how}"}
    views = [features(peer.shape, seed) for seed in range(peer.views)]
    functions = [partial(_value_and_gradient, each, views) for each in (theirs, peer.ours)]
    difference = max(map(_difference, *(function() for function in functions)))
    if not difference <= SAME:
        return found | {"difference": difference, "note": peer.why or "another value"}
    other, ours = medians(functions, repeats)
    return found | {"difference": difference, "ratio": other / ours}


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def _value_and_gradient(function: Callable[..., Tensor], views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)  # the same random directions for both
    views = [view.clone().requires_grad_() for view in views]
    value = function(*views)
    gradients = torch.autograd.grad(value, views, allow_unused=True)
    return value.detach(), torch.cat([each for each in gradients if each is not None])


def peers() -> list[Peer]:
    """Return the functions that another package has too."""

    def lightly(name: str, **options: Any) -> Callable[[], Callable[..., Tensor]]:
        return lambda: getattr(importlib.import_module("lightly.loss"), name)(**options)

    def solo(name: str, loss: str) -> Callable[[], Callable[..., Tensor]]:
        return lambda: getattr(importlib.import_module(f"solo.losses.{name}"), loss)

    def ntxent_of_first(x: Tensor, y: Tensor) -> Tensor:
        return ntxent_loss(x[:, :360], y[:, :360])

    ntxent, vicreg = partial(ntxent_loss, temperature=0.1), partial(vicreg_loss, var=12.5)
    direct = lightly("DirectCLRLoss", temperature=0.1, loss_dim=360)
    own_view = "lightly also takes the rows of the same view as negatives, unlike the paper's code"
    return [
        Peer("DirectCLR", "lightly", (256, 2048), directclr_loss, direct, 2, own_view),
        Peer("NT-Xent of 360 entries", "lightly", (256, 2048), ntxent_of_first, direct, 2),
        Peer("NT-Xent", "lightly", (256, 256), ntxent, lightly("NTXentLoss", temperature=0.1), 2),
        Peer("NT-Xent", "solo-learn", (256, 256), ntxent, _solo_ntxent, 2),
        Peer("VICReg", "lightly", (256, 2048), vicreg, lightly("VICRegLoss"), 2),
        Peer("VICReg", "solo-learn", (256, 2048), vicreg_loss, solo("vicreg", "vicreg_loss_func"), 2),
        Peer("KoLeo", "lightly", (512, 512), koleo_loss, lightly("KoLeoLoss")),
        Peer("SIGReg", "lightly", (256, 128), partial(_sliced, sigreg_loss), lightly("SIGReg")),
        Peer("VISReg", "lightly", (256, 128), partial(_sliced, visreg_loss), _lightly_visreg),
        Peer("RankMe", "a plain SVD", (2048, 512), rankme, lambda: rankme_by_svd),
    ]


def _solo_ntxent() -> Callable[..., Tensor]:
    """Return solo-learn's NT-Xent; the current one takes both views in one, and the image of each row."""
    loss = importlib.import_module("solo.losses.simclr").simclr_loss_func
    if "indexes" not in inspect.signature(loss).parameters:
        return loss
    return lambda x, y: loss(torch.cat([x, y]), torch.arange(len(x), device=x.device).repeat(2))


def rankme_by_svd(x: Tensor) -> Tensor:
    """Return RankMe from the singular values, as its paper writes it."""
    values = torch.linalg.svdvals(x)
    p = values / values.sum() + 1e-7
    return (-(p * p.log()).sum()).exp()


def _sliced(loss: Callable[[Tensor, Tensor], Tensor], x: Tensor) -> Tensor:
    return loss(x, F.normalize(torch.randn(x.shape[1], 1024), dim=0))


def _lightly_visreg() -> Callable[[Tensor], Tensor]:
    part = importlib.import_module("lightly.loss.visreg_loss")
    return lambda x: (
        part.visreg_scale_loss(x) + part.visreg_shape_loss(x, num_slices=1024) + part.visreg_center_loss(x)
    )


def peers_table(contents: Sequence[Any]) -> str:
    """Return the outputs of ``bench --peers --json`` as a Markdown table."""
    lines: list[str] = []
    for content in contents:
        torch_version = ".".join(str(content["torch"]).split(".")[:2])
        lines += [f"{content['instructions']}, {content['threads']} threads, torch {torch_version}.", ""]
        lines += [*markdown_table(HEADER, list(map(cells, content["peers"]))), ""]
    return "\n".join(lines)


HEADER = ("loss or metric", "beside", "each view", "difference", "peer's time over ours")


def cells(found: Mapping[str, Any]) -> list[str]:
    """Return a comparison as the cells of a table."""
    difference = "" if found["difference"] is None else f"{found['difference']:.0e}"
    ratio = f"not timed: {found['note']}" if found["ratio"] is None else f"{found['ratio']:.1f}"
    return [found["name"], found["package"], found["shape"], difference, ratio]
