"""Measure the experiments of claims that need no trained rows; each takes seconds per seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import fmean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from solo_dimreg.datasets.sprites import FACTORS, SHAPES, draw_sprites, sample_factors
from solo_dimreg.functional import (
    effective_rank,
    geometric_mean_lid,
    koleo_loss,
    rankme,
    sigreg_loss,
    uniformity,
    visreg_loss,
    wasserstein_uniformity,
)
from solo_dimreg.studies.bench import compare_steps
from solo_dimreg.studies.toy.experiments import (
    STRONG,
    WEAK,
    WIDTH,
    implicit_regularization,
    strong_augmentation,
    subspace_cosine,
)
from solo_dimreg.studies.toy.stepwise import stepwise_learning

SMALL = 1e-6  # of stepwise learning's initial weights
SPRITES = 3_000
NEIGHBOURS = 32
SCALES = (1.0, 1e-4)  # lengths of the features: healthy, and collapsed
EMPTY = (0.0, 0.5)  # the emptied parts of the axes


def measure_strong_augmentation(seed: int) -> dict[str, Any]:
    """Return the gaps of DirectCLR's first toy experiment, for weak and strong noise."""
    return {f"gap_{noise:g}": strong_augmentation(noise, seed=seed).gap for noise in (WEAK, STRONG)}


def measure_implicit_regularization(seed: int) -> dict[str, Any]:
    """Return the growths of two singular values and the alignments of DirectCLR's second toy experiment."""
    found = implicit_regularization(seed=seed)
    first, last = (torch.tensor(found.layer1[index]) for index in (0, -1))
    return {
        "middle_growth": float((last - first)[WIDTH // 2]),
        "smallest_growth": float((last - first)[-1]),
        "cosine_before": subspace_cosine(found.alignment_before, found.leading),
        "cosine_after": subspace_cosine(found.alignment_after, found.leading),
    }


def measure_stepwise_learning(seed: int) -> dict[str, Any]:
    """Return the largest relative error of the predicted times of stepwise learning, and the times."""
    found = stepwise_learning(seed, SMALL)
    return {"error": found.error, "predicted": found.predicted, "measured": found.measured}


def measure_pixels(seed: int) -> dict[str, Any]:
    """Return how far dimension metrics of sprites' pixels are from the number of free factors, 1 to 8.

    Returns:
        For each metric the ``values``, one per number of factors, and the mean relative ``error``.
    """
    metrics: dict[str, Callable[[Tensor], Tensor]] = {
        "lid": lambda x: geometric_mean_lid(x, k=NEIGHBOURS),
        "lid_mle": lambda x: geometric_mean_lid(x, k=NEIGHBOURS, estimator="mle"),
        "effective_rank": lambda x: effective_rank(x, center=True),
        "rankme": rankme,
    }
    counts = range(1, len(FACTORS) + 1)
    values: dict[str, list[float]] = {name: [] for name in metrics}
    for free in counts:
        factors = sample_factors(SPRITES, free, seed)
        images = [draw_sprites(shape, factors[i :: len(SHAPES)]) for i, shape in enumerate(SHAPES)]
        pixels = torch.from_numpy(np.concatenate(images)).flatten(1).float() / 255
        for name, metric in metrics.items():
            values[name].append(float(metric(pixels)))
    return {
        name: {
            "values": found,
            "error": fmean(abs(value - free) / free for value, free in zip(found, counts, strict=True)),
        }
        for name, found in values.items()
    }


def measure_step(seed: int) -> dict[str, Any]:
    """Return the percent that losses and terms add to a step of a ResNet-18; the seed has no effect."""
    return {each.name: 100 * (each.ratio - 1) for each in compare_steps(3)}


def measure_collapsing(seed: int) -> dict[str, Any]:
    """Return the gradients of SIGReg and VISReg on features that shrink to a point, after VISReg's script.

    Returns:
        For each loss, log10 of the growth of the mean length of a feature's gradient between the ``SCALES``.
        There are 64 features of 512 numbers, in uniform directions, and 64 slices.
    """
    generator = torch.Generator().manual_seed(seed)
    points = F.normalize(torch.randn(64, 512, generator=generator))
    slices = F.normalize(torch.randn(512, 64, generator=generator), dim=0)
    growth = {}
    for name, loss in (("sigreg", sigreg_loss), ("visreg", visreg_loss)):
        lengths = []
        for scale in SCALES:
            x = (scale * points).requires_grad_()
            lengths.append(float(torch.autograd.grad(loss(x, slices=slices), x)[0].norm(dim=1).mean()))
        growth[name] = math.log10(lengths[1] / lengths[0])
    return growth


def measure_empty_axes(seed: int) -> dict[str, Any]:
    """Return the rise, over their range, of two uniformities of points when half of 128 axes are emptied."""
    points = torch.randn(2_000, 128, generator=torch.Generator().manual_seed(seed))
    clouds = [points * (torch.arange(128) >= 128 * part) for part in EMPTY]
    rises = {}
    for name, metric, span in (
        ("uniformity", uniformity, 4.0),
        ("wasserstein", wasserstein_uniformity, math.sqrt(2)),
    ):
        full, half = (float(metric(cloud)) for cloud in clouds)
        rises[name] = (half - full) / span
    return rises


def measure_spreading(seed: int) -> dict[str, Any]:
    """Return the spread of 256 points near a great circle in 16 axes, after minimizing two losses.

    Returns:
        For uniformity, KoLeo and the start: the part of the dimensions that is ``filled``, by the effective
        rank, and the ``uniformity`` of the points.
    """
    generator = torch.Generator().manual_seed(seed)
    width = torch.tensor([1.0] * 2 + [0.02] * 14)
    start = F.normalize(torch.randn(256, 16, generator=generator) * width)
    ends = {
        "start": start,
        "uniformity": _minimized(uniformity, start),
        "koleo": _minimized(koleo_loss, start),
    }
    return {
        name: {"filled": float(effective_rank(x, center=True)) / 16, "uniformity": float(uniformity(x))}
        for name, x in ends.items()
    }


def _minimized(loss: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    x = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()
    return F.normalize(x.detach())


#: For each experiment, the function of the seed, and a number to raise when its values change.
EXPERIMENTS: dict[str, tuple[Callable[[int], dict[str, Any]], int]] = {
    "strong_augmentation": (measure_strong_augmentation, 1),
    "implicit_regularization": (measure_implicit_regularization, 3),
    "stepwise_learning": (measure_stepwise_learning, 2),
    "pixels": (measure_pixels, 1),
    "step": (measure_step, 1),
    "collapsing": (measure_collapsing, 2),
    "empty_axes": (measure_empty_axes, 2),
    "spreading": (measure_spreading, 2),
}
