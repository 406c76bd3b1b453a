"""The losses of the cost benchmark, each beside the form that its paper or a textbook has."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from solo_dimreg.functional import (
    directclr_loss,
    effective_rank,
    koleo_loss,
    ldreg_loss,
    sigreg_loss,
    t_reg_loss,
    uniformity,
    visreg_loss,
    wasserstein_uniformity,
    zca_whiten,
)

Loss = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """A function of features of some shape, and its textbook formulation."""

    name: str
    shape: tuple[int, int]
    ours: Loss
    textbook: Loss


def features(shape: tuple[int, int], seed: int = 0) -> Tensor:
    """Return non-negative features around a surface of 24 dimensions, like those of an encoder."""
    generator = torch.Generator().manual_seed(seed)
    latent = torch.randn(shape[0], 24, generator=generator) @ torch.randn(24, shape[1], generator=generator)
    return (latent + torch.randn(*shape, generator=generator)).relu()


def textbook_ldreg(
    x: Tensor, k: int, ascending: Callable[[Tensor], Tensor] = lambda x: x.sort(dim=1).values
) -> Tensor:
    """Return LDReg's loss from all distances by a matrix product, fully sorted, with autograd."""
    distances = torch.cdist(x, x.detach(), compute_mode="use_mm_for_euclid_dist")
    nearest = ascending(distances)[:, 1 : k + 1]
    mean = nearest[:, :-1].mean(dim=1)
    return -(mean / (nearest[:, -1] - mean)).log().mean()


def textbook_effective_rank(x: Tensor) -> Tensor:
    """Return the effective rank from the singular value decomposition of the features."""
    values = torch.linalg.svdvals(x - x.mean(dim=0))
    p = values / values.sum()
    return torch.special.entr(p).sum().exp()


def textbook_whitening(x: Tensor) -> Tensor:
    """Return a whitening loss with autograd through eigenvectors; equal eigenvalues give NaN."""
    centred = x - x.mean(dim=0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(x))
    return _weighted_sines(centred @ (vectors / (values + 1e-5).sqrt() @ vectors.T))


def textbook_directclr(x: Tensor) -> Tensor:
    """Return the InfoNCE of the first entries, as a paper writes it."""
    z1, z2 = (F.normalize(view[:, :360]) for view in x.chunk(2))
    logits, labels = z1 @ z2.T / 0.1, torch.arange(len(z1), device=x.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def textbook_uniformity(x: Tensor) -> Tensor:
    """Return uniformity from all distances by ``pdist``, as in the paper's code."""
    return torch.pdist(F.normalize(x)).pow(2).mul(-2).exp().mean().log()


def textbook_koleo(x: Tensor) -> Tensor:
    """Return KoLeo from distances to the nearest points, which a matrix product finds."""
    unit = F.normalize(x)
    products = (unit @ unit.T).detach().fill_diagonal_(-1)
    return -(torch.linalg.vector_norm(unit - unit[products.argmax(dim=1)], dim=1) + 1e-8).log().mean()


def textbook_wasserstein(x: Tensor) -> Tensor:
    """Return the Wasserstein uniformity from the eigenvalues of the covariance.

    A small constant keeps the slope of their roots finite.
    """
    unit = F.normalize(x)
    mean = unit.mean(dim=0)
    covariance = (unit - mean).T @ (unit - mean) / len(x)
    roots = (torch.linalg.eigvalsh(covariance) + 1e-12).sqrt().sum()
    return ((mean**2).sum() + 1 + covariance.trace() - 2 / math.sqrt(x.shape[1]) * roots).sqrt()


def textbook_sigreg(x: Tensor) -> Tensor:
    """Return SIGReg from all knots of all projections at once."""
    t = torch.linspace(0, 3, 17, dtype=x.dtype, device=x.device)
    angles = (x @ directions(x)).unsqueeze(2) * t
    gaussian = (-(t**2) / 2).exp()
    errors = (angles.cos().mean(dim=0) - gaussian) ** 2 + angles.sin().mean(dim=0) ** 2
    return 2 * len(x) * torch.trapezoid(errors * gaussian, t).mean()


def textbook_visreg(x: Tensor) -> Tensor:
    """Return VISReg column by column, with PyTorch's own standard deviation and Gaussian."""
    std = x.std(dim=0, correction=0)
    projections = ((x - x.mean(dim=0)) / (std.detach() + 1e-4)) @ directions(x)
    places = torch.arange(1, len(x) + 1, dtype=x.dtype, device=x.device) / (len(x) + 1)
    quantiles = torch.distributions.Normal(0.0, 1.0).icdf(places)[:, None]
    shape = (projections.sort(dim=0).values - quantiles).pow(2).mean()
    return (1 - std).pow(2).mean() + shape + x.mean(dim=0).pow(2).mean()


def textbook_t_reg(x: Tensor) -> Tensor:
    """Return T-REG from all distances with their gradient, of which the tree selects some."""
    from scipy.sparse.csgraph import minimum_spanning_tree

    distances = torch.cdist(x, x)
    row, column = minimum_spanning_tree(distances.detach().cpu().numpy()).nonzero()
    return 0.004 * (x.norm(dim=1) - 1).pow(2).mean() - distances[row, column].sum() / len(x)


def directions(x: Tensor) -> Tensor:
    """Return 1,024 fixed unit vectors as columns, drawn once on the CPU."""
    return _directions(x.shape[1], x.dtype, x.device)


@functools.cache
def _directions(width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    normal = torch.randn(width, 1024, generator=torch.Generator().manual_seed(0))
    return F.normalize(normal.to(dtype), dim=0).to(device)


def spread(loss: Loss) -> Loss:
    """Return the loss of standardized features, to which embeddings are compared."""
    return lambda x: loss((x - x.mean(dim=0)) / x.std(dim=0))


def _weighted_sines(z: Tensor) -> Tensor:
    """Return a scalar that weights all rows and columns differently."""
    weights = torch.arange(1.0, z.shape[1] + 1, device=z.device) / z.shape[1]
    return (z * weights).sin().mean()


LDREG = (
    (512, 512, 64),
    (768, 384, 48),
    (1024, 2048, 64),
    (2048, 2048, 64),
    (3072, 1536, 96),
    (4096, 2048, 64),
)


def cases() -> list[Case]:
    """Return all cases."""

    def ldreg(b: int, d: int, k: int) -> Case:
        return Case(f"LDReg, k = {k}", (b, d), partial(ldreg_loss, k=k), partial(textbook_ldreg, k=k))

    return [
        *(ldreg(*shape) for shape in LDREG),
        Case("effective rank", (512, 2048), partial(effective_rank, center=True), textbook_effective_rank),
        Case("DBN", (512, 128), lambda x: _weighted_sines(zca_whiten(x)), textbook_whitening),
        Case("DirectCLR", (512, 2048), _directclr_of_halves, textbook_directclr),
        Case("uniformity", (512, 256), uniformity, textbook_uniformity),
        Case("KoLeo", (512, 512), koleo_loss, textbook_koleo),
        Case("Wasserstein uniformity", (512, 256), wasserstein_uniformity, textbook_wasserstein),
        Case("SIGReg", (256, 128), _sliced(sigreg_loss), spread(textbook_sigreg)),
        Case("VISReg", (256, 128), _sliced(visreg_loss), spread(textbook_visreg)),
        Case("T-REG", (512, 256), t_reg_loss, textbook_t_reg),
    ]


def _directclr_of_halves(x: Tensor) -> Tensor:
    first, second = x.chunk(2)
    return directclr_loss(first, second)


def _sliced(loss: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    return spread(lambda x: loss(x, directions(x)))
