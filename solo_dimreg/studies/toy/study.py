"""Run the three toy experiments, and write and plot their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from solo_dimreg.files import write_json
from solo_dimreg.plots import COLOURS, MARKERS, STYLE, save_png
from solo_dimreg.studies.toy.experiments import (
    STRONG,
    WEAK,
    WIDTH,
    ImplicitRegularization,
    Matrix,
    StrongAugmentation,
    implicit_regularization,
    mean_diagonal,
    principal_alignment,
    strong_augmentation,
    subspace_cosine,
)
from solo_dimreg.studies.toy.stepwise import StepwiseLearning, stepwise_learning

UPPER, LOWER = COLOURS[0], COLOURS[5]


def run_toy(out: Path, steps: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Run all experiments, write toy.json and the plots into a folder, and return the effects."""
    strong = []
    for noise in (WEAK, STRONG):
        say(f"Strong augmentation, noise {noise:g}: {steps} steps ...")
        strong.append(strong_augmentation(noise, steps, seed))
    say(f"Implicit regularization: {steps} steps ...")
    implicit = implicit_regularization(steps, seed)
    say("Stepwise learning ...")
    stepwise = stepwise_learning(seed)
    effects = {**_effects(strong, implicit), "stepwise_error": stepwise.error}
    write_json(
        out / "toy.json",
        {
            "steps": steps,
            "seed": seed,
            "effects": effects,
            "strong_augmentation": [asdict(each) for each in strong],
            "implicit_regularization": asdict(implicit),
            "stepwise_learning": asdict(stepwise),
        },
    )
    save_png(draw_strong(strong), out / "strong_augmentation.png")
    save_png(draw_implicit(implicit), out / "implicit_regularization.png")
    save_png(draw_alignment(implicit), out / "alignment.png")
    save_png(draw_stepwise(stepwise), out / "stepwise_learning.png")
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


@rc_context(STYLE)
def draw_strong(results: Sequence[StrongAugmentation]) -> Figure:
    """Return a figure of the final spectrum and the spectrum during training, for each noise."""
    figure = Figure(figsize=(3.6 * (1 + len(results)), 3.4))
    figure.set_label("Spectra of one layer under weak and strong augmentation")
    panels = figure.subplots(1, 1 + len(results), sharey=True)
    for i, result in enumerate(results):
        values = np.log(result.spectra[-1])
        line = {"marker": MARKERS[i], "markersize": 5, "color": COLOURS[2 + i]}
        panels[0].plot(range(1, len(values) + 1), values, label=f"noise {result.noise:g}", **line)
        _draw_training(panels[i + 1], result.steps, result.spectra, upper=len(values) // 2)
        panels[i + 1].set_title(f"during training, noise {result.noise:g}", fontsize=11)
        panels[i + 1].legend(handles=_handles("upper half", "lower half"), loc="lower right", fontsize=10)
    panels[0].set_title("after training", fontsize=11)
    panels[0].set_xticks(range(1, len(results[0].spectra[-1]) + 1, 3))
    panels[0].set_xlabel("index of the singular value")
    panels[0].set_ylabel("ln of singular value of the outputs")
    panels[0].legend(loc="lower left", fontsize=10)
    return figure


@rc_context(STYLE)
def draw_implicit(result: ImplicitRegularization) -> Figure:
    """Return a figure of the singular values of the outputs and of both layers during training."""
    figure = Figure(figsize=(10.8, 3.4))
    figure.set_label("Singular values of the outputs and of both layers over the training")
    recorded = {"outputs": result.spectra, "layer 1": result.layer1, "layer 2": result.layer2}
    panels = figure.subplots(1, len(recorded))
    for axes, (name, values) in zip(panels, recorded.items(), strict=True):
        _draw_training(axes, result.steps, values, upper=result.leading)
        axes.set_title(name, fontsize=11)
    # Only the layers share a scale: the outputs' covariance, of the fourth power, would flatten it.
    panels[2].sharey(panels[1])
    panels[0].set_ylabel("ln of singular value")
    handles = _handles(f"the {result.leading} leading ones at the end", "the others")
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=10)
    return figure


@rc_context({**STYLE, "axes.grid": False, "axes.spines.right": True, "axes.spines.top": True})
def draw_alignment(result: ImplicitRegularization) -> Figure:
    """Return a figure of the absolute alignment matrix before and after training.

    The leading directions are marked. A third panel shows the matrix after training with the principal
    vectors of the leading subspaces as bases, in which it is the identity.
    """
    figure = Figure(figsize=(11.4, 4.1))
    figure.set_label("Alignment of the two layers before and after training")
    panels = figure.subplots(1, 3, sharey=True)
    shown = {
        "before training": result.alignment_before,
        "after training": result.alignment_after,
        "after training, principal vectors": principal_alignment(result.alignment_after, result.leading),
    }
    ticks, edges = range(1, WIDTH + 1, 3), (0.5, WIDTH + 0.5)
    corner = result.leading + 0.5
    for axes, (title, matrix) in zip(panels, shown.items(), strict=True):
        image = axes.imshow(np.abs(matrix), vmin=0, vmax=1, cmap="cividis", extent=(*edges, *edges[::-1]))
        axes.plot([0.5, corner, corner], [corner, corner, 0.5], color="white", lw=1.2)
        axes.set(title=title, xlabel="left singular vector of layer 1", xticks=ticks, yticks=ticks)
        axes.title.set_fontsize(11)
    panels[0].set_ylabel("right singular vector of layer 2")
    figure.colorbar(image, ax=panels, label="|inner product|", shrink=0.8)
    return figure


@rc_context(STYLE)
def draw_stepwise(result: StepwiseLearning) -> Figure:
    """Return a figure of the eigenvalues over time, with the predicted times of their rise."""
    figure = Figure(figsize=(7.2, 3.4))
    figure.set_label("Linear Barlow Twins learns one dimension after another")
    axes = figure.add_subplot()
    measured, *_ = axes.plot(result.times, result.eigenvalues, color=UPPER, linewidth=1.3)
    predicted = axes.vlines(result.predicted, 0, 1, color=LOWER, linestyle="--", linewidth=1)
    axes.set(xlabel="learning rate x step", ylabel="eigenvalue of the embeddings")
    names = ["measured", "predicted time of the rise"]
    figure.legend([measured, predicted], names, loc="outside lower center", ncols=2, fontsize=10)
    return figure


def _draw_training(axes: Any, steps: Sequence[int], values: Matrix, upper: int) -> None:
    """Draw a line per singular value, the ``upper`` largest in one colour and the others in another."""
    for index, line in enumerate(np.log(values).T):
        axes.plot(steps, line, color=UPPER if index < upper else LOWER, linewidth=1.1)
    axes.set_xlabel("step")
    axes.locator_params(axis="x", nbins=4)


def _handles(upper: str, lower: str) -> list[Line2D]:
    pairs = zip((UPPER, LOWER), (upper, lower), strict=True)
    return [Line2D([], [], color=colour, label=label) for colour, label in pairs]
