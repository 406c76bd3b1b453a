"""What claims measure besides trained rows: seconds each, once a seed."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solo_dimreg.datasets.sprites import FACTORS, SHAPES, draw_sprites, sample_factors
from solo_dimreg.functional import effective_rank, geometric_mean_lid, rankme
from solo_dimreg.studies.bench import compare_steps
from solo_dimreg.studies.claims.claim import Experiment
from solo_dimreg.studies.toy.experiments import (
    STRONG,
    WEAK,
    WIDTH,
    implicit_regularization,
    strong_augmentation,
    subspace_cosine,
)

SPRITES = 3_000
NEIGHBOURS = 32


def measure_strong_augmentation(seed: int) -> dict[str, Any]:
    """DirectCLR's first toy experiment: how far the noisy half of the spectrum falls behind."""
    return {f"gap_{noise:g}": strong_augmentation(noise, seed=seed).gap for noise in (WEAK, STRONG)}


def measure_implicit_regularization(seed: int) -> dict[str, Any]:
    """DirectCLR's second: how much the middle and the smallest singular value grow, and how layers align."""
    found = implicit_regularization(seed=seed)
    first, last = (torch.tensor(found.layer1[index]) for index in (0, -1))
    return {
        "middle_growth": float((last - first)[WIDTH // 2]),
        "smallest_growth": float((last - first)[-1]),
        "cosine_before": subspace_cosine(found.alignment_before, found.leading),
        "cosine_after": subspace_cosine(found.alignment_after, found.leading),
    }


def measure_pixels(seed: int) -> dict[str, Any]:
    """How far dimension figures of the pixels of sprites are from the number of free factors, 1 to 8.

    Returns:
        For each figure the ``values``, one a number of factors, and the mean relative ``error``.
    """
    figures: dict[str, Callable[[Tensor], Tensor]] = {
        "lid": lambda x: geometric_mean_lid(x, k=NEIGHBOURS),
        "lid_mle": lambda x: geometric_mean_lid(x, k=NEIGHBOURS, estimator="mle"),
        "effective_rank": lambda x: effective_rank(x, center=True),
        "rankme": rankme,
    }
    counts = range(1, len(FACTORS) + 1)
    values: dict[str, list[float]] = {name: [] for name in figures}
    for free in counts:
        factors = sample_factors(SPRITES, free, seed)
        images = [draw_sprites(shape, factors[i :: len(SHAPES)]) for i, shape in enumerate(SHAPES)]
        pixels = torch.from_numpy(np.concatenate(images)).flatten(1).float() / 255
        for name, figure in figures.items():
            values[name].append(float(figure(pixels)))
    return {
        name: {
            "values": found,
            "error": fmean(abs(value - free) / free for value, free in zip(found, counts, strict=True)),
        }
        for name, found in values.items()
    }


def measure_step(seed: int) -> dict[str, Any]:
    """Percent that losses and terms add to a step of a ResNet-18, forward and backward; the seed is idle."""
    return {each.name: 100 * (each.ratio - 1) for each in compare_steps(3)}


STRONG_AUGMENTATION = Experiment("strong_augmentation", measure_strong_augmentation)
IMPLICIT_REGULARIZATION = Experiment("implicit_regularization", measure_implicit_regularization, version=3)
PIXELS = Experiment("pixels", measure_pixels)
STEP = Experiment("step", measure_step)
