"""Plots of a comparison of methods, as PNG files."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

# Okabe and Ito's colours, told apart with every common colour blindness; grey for their pale yellow.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#7F7F7F")
STYLES = ("-", "--", ":", "-.")


def _save(figure: Any, path: Path) -> None:
    """Writes the figure whole: under another name first."""
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, dpi=150, bbox_inches="tight", format="png")
    plt.close(figure)
    os.replace(temporary, path)


def plot_accuracies(
    names: Sequence[str], accuracies: Mapping[str, Sequence[tuple[float, float | None]]], path: Path
) -> None:
    """Grouped bars of accuracies in percent.

    Args:
        names: Names of the methods.
        accuracies: For each evaluation, by name, the mean and the standard deviation (None for a single
            seed) of each method.
        path: The PNG file to write.
    """
    figure, axes = plt.subplots(figsize=(1.2 + 1.1 * len(names), 3.6))
    width = 0.8 / len(accuracies)
    for i, (evaluation, values) in enumerate(accuracies.items()):
        positions = [x + (i - (len(accuracies) - 1) / 2) * width for x in range(len(names))]
        means = [mean for mean, _ in values]
        spread = [std or 0 for _, std in values] if any(std for _, std in values) else None
        bars = axes.bar(positions, means, width, yerr=spread, capsize=2, label=evaluation, color=COLOURS[i])
        axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
    axes.set_xticks(range(len(names)), names, rotation=20, ha="right")
    axes.set_ylabel("top-1 accuracy (%)")
    axes.set_ylim(0, 112)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(accuracies), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def plot_spectra(spectra: Mapping[str, Sequence[float]], path: Path) -> None:
    """Log singular values of the covariance of the representations, each method's largest set to 0.

    Args:
        spectra: For each method, by name, its singular values, descending.
        path: The PNG file to write.
    """
    figure, axes = plt.subplots(figsize=(6.4, 4.0))
    for i, (name, values) in enumerate(spectra.items()):
        floor = max(values[0], 1e-30) * 1e-9
        logs = [math.log10(max(value, floor) / max(values[0], 1e-30)) for value in values]
        axes.plot(
            range(1, len(logs) + 1),
            logs,
            STYLES[(i + i // len(COLOURS)) % len(STYLES)],
            color=COLOURS[i % len(COLOURS)],
            label=name,
        )
    axes.set_xlabel("index of the singular value")
    axes.set_ylabel("log10 of singular value / largest")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)
