"""Run DirectCLR's two toy experiments, and write their results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from solo_dimreg.files import write_json
from solo_dimreg.plots import save_png
from solo_dimreg.studies.toy.experiments import (
    STRONG,
    WEAK,
    ImplicitRegularization,
    StrongAugmentation,
    implicit_regularization,
    mean_diagonal,
    principal_alignment,
    strong_augmentation,
    subspace_cosine,
)
from solo_dimreg.studies.toy.plots import draw_alignment, draw_implicit, draw_strong


def run_toy(out: Path, steps: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Run both experiments and write toy.json and the plots.

    Args:
        out: The folder to write into.
        steps: The number of batches of each of the three trainings, at least 1.
        seed: The seed of all random numbers.
        say: The function that prints which training begins.

    Returns:
        The effects, as in toy.json.

    Raises:
        ConfigError: ``steps`` is below 1.
    """
    strong = []
    for noise in (WEAK, STRONG):
        say(f"Strong augmentation, noise {noise:g}: {steps} steps ...")
        strong.append(strong_augmentation(noise, steps, seed))
    say(f"Implicit regularization: {steps} steps ...")
    implicit = implicit_regularization(steps, seed)
    effects = _effects(strong, implicit)
    write_json(
        out / "toy.json",
        {
            "steps": steps,
            "seed": seed,
            "effects": effects,
            "strong_augmentation": [asdict(each) for each in strong],
            "implicit_regularization": asdict(implicit),
        },
    )
    save_png(draw_strong(strong), out / "strong_augmentation.png")
    save_png(draw_implicit(implicit), out / "implicit_regularization.png")
    save_png(draw_alignment(implicit), out / "alignment.png")
    return effects


def _effects(strong: list[StrongAugmentation], implicit: ImplicitRegularization) -> dict[str, Any]:
    leading = implicit.leading
    matrices = {"before": implicit.alignment_before, "after": implicit.alignment_after}
    return {
        "gap": {f"{each.noise:g}": each.gap for each in strong},
        "leading_directions": leading,
        "subspace_cosine": {when: subspace_cosine(matrix, leading) for when, matrix in matrices.items()},
        "mean_diagonal": {when: mean_diagonal(matrix, leading) for when, matrix in matrices.items()},
        "mean_principal_diagonal": {
            when: mean_diagonal(principal_alignment(matrix, leading), leading)
            for when, matrix in matrices.items()
        },
    }
