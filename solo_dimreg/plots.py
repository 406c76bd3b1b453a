"""Plots of a run or of a comparison, as matplotlib figures, PNG files and SVG."""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from PIL import Image

from solo_dimreg.files import write_bytes

# The colours of axes and text.
INK, INK_ON_DARK = "#0a0b0c", "#e6e9ed"
# Okabe and Ito's colours, safe for colour blindness; grey replaces their pale yellow, and INK their black.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", INK, "#7F7F7F")
GREY = 7
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "D")
WIDTH = 4.8  # inches, which a phone can show without making the text too small to read
STYLE: Any = {
    **{f"{part}.color": INK for part in ("text", "xtick", "ytick", "grid")},
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "grid.alpha": 0.2,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "text.parse_math": False,  # a name with two $ is not a formula
}

# LIDs are left out that are further from the median than this many interquartile ranges and than this ratio.
LID_SPREADS, LID_RATIO = 4.0, 8.0

LAYER_NAMES = 30  # at most this many names of layers fit below a figure

Curve = Mapping[int, float]  # a metric over the epochs: epoch -> value


@rc_context(STYLE)
def draw_accuracies(
    names: Sequence[str], accuracies: Mapping[str, Sequence[tuple[float, float | None]]]
) -> Figure:
    """Draw accuracies in percent as points, with a bar of one standard deviation to each side.

    Args:
        accuracies: For each evaluation, by name, the mean and the standard deviation (None for a single
            seed) of each method; NaN if a method has none.
    """
    figure, axes = _one_plot("Top-1 accuracy of each method", 0.8 + 0.34 * len(names), accuracies)
    for i, values in enumerate(accuracies.values()):
        offset = 0.26 * (i - (len(accuracies) - 1) / 2)
        axes.errorbar(
            [mean for mean, _ in values],
            [y + offset for y in range(len(names))],
            xerr=[std or 0 for _, std in values] if any(std for _, std in values) else None,
            fmt=MARKERS[i % len(MARKERS)],
            color=COLOURS[i],
            capsize=3,
        )
    axes.set_yticks(range(len(names)), [shorten(name, 20) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("top-1 accuracy (%)")
    points = [
        Line2D([], [], linestyle="", marker=MARKERS[i % len(MARKERS)], color=COLOURS[i])
        for i in range(len(accuracies))
    ]
    _legend(figure, points, list(accuracies))
    return figure


@rc_context(STYLE)
def draw_spectra(spectra: Mapping[str, Sequence[float]], names: Sequence[str] | None = None) -> Figure:
    """Draw the log singular values of the covariance of features, each spectrum divided by its largest value.

    Args:
        spectra: For each method or input, by name, its singular values, descending.
        names: All names, if some have no spectrum. The position of a name gives its colour in every plot.
    """
    places = list(names or spectra)
    figure, axes = _one_plot("Spectra of " + ", ".join(spectra), 3.0, spectra)
    for name, values in spectra.items():
        largest = max(values[0], 1e-30)
        logs = [math.log10(max(value / largest, 1e-9)) for value in values]
        axes.plot(range(1, len(logs) + 1), logs, **_line(places.index(name)))
    axes.set_xlabel("index of the singular value")
    axes.set_ylabel("log10 of singular value / largest")
    _legend_of_lines(figure, {name: places.index(name) for name in spectra})
    return figure


@rc_context(STYLE)
def draw_curves(
    panels: Mapping[str, Mapping[str, Sequence[Curve]]], names: Sequence[str], axis: str = "epoch"
) -> Figure:
    """Draw metrics over the epochs, each in a panel.

    Args:
        panels: For each metric, by its label, the curves of each run or method, by name, one for each seed.
            Several curves are drawn thin, and their mean, at the epochs that all have, is drawn thick.
        names: All names. The position of a name gives its colour in every plot.
    """
    columns = min(len(panels), 2)
    rows = math.ceil(len(panels) / columns)
    shown = [name for name in names if any(name in runs for runs in panels.values())]
    height = (2.7 if columns == 1 else 1.9) * rows
    figure = Figure(figsize=(WIDTH, height + _legend_height(shown)))
    figure.set_label(", ".join(panels) + f" over the {axis}s")
    handles: dict[str, Any] = {}
    for place, (label, runs) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(rows, columns, place)
        axes.set_title(label, fontsize=11)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6 if columns == 1 else 4, integer=True))
        axes.set_xlabel(axis)
        for name in (name for name in names if name in runs):
            handles[name] = _draw_seeds(axes, runs[name], _line(names.index(name)))
    if len(names) > 1:
        _legend(figure, [handles[name] for name in shown], [shorten(name) for name in shown])
    return figure


@rc_context(STYLE)
def draw_layers(
    layers: Sequence[str], panels: Mapping[str, Mapping[str, Sequence[float]]], behind: int | None = None
) -> Figure:
    """Draw metrics over the layers of a network, each in a panel.

    Args:
        panels: For each metric, by its label, the values at the layers for each input, by name.
        behind: The number of layers of the backbone, if there are further layers behind it.
    """
    names = list(next(iter(panels.values())))
    longest = max(len(shorten(name, 24)) for name in layers)
    legend = _legend_height(names) if len(names) > 1 else 0
    figure = Figure(figsize=(WIDTH, 1.35 * len(panels) + 0.075 * longest + legend))
    figure.set_label(", ".join(panels) + " over the layers of " + ", ".join(names))
    every = math.ceil(len(layers) / LAYER_NAMES)
    shared = None
    for place, (label, lines) in enumerate(panels.items(), 1):
        axes = shared = figure.add_subplot(len(panels), 1, place, sharex=shared)
        axes.set_title(label, fontsize=11)
        for i, values in enumerate(lines.values()):
            axes.plot(range(len(layers)), values, marker=".", **_line(i))
        axes.set_ylim(0, 1.1 * max((each for line in lines.values() for each in line if each > 0), default=1))
        if behind is not None:
            axes.axvline(behind - 0.5, color=INK, linewidth=0.8, alpha=0.6)
        axes.set_xticks(range(0, len(layers), every))
        axes.tick_params(labelbottom=place == len(panels))
    ticks = [shorten(name, 24) for name in layers[::every]]
    axes.set_xticklabels(ticks, rotation=90, fontsize=8)
    if len(names) > 1:
        _legend_of_lines(figure, {name: i for i, name in enumerate(names)})
    return figure


@rc_context(STYLE)
def draw_cumulative_variance(spectra: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the part of the variance that the leading directions of each input's spectrum hold."""
    figure, axes = _one_plot("Cumulative variance of " + ", ".join(spectra), 3.0, spectra)
    for i, values in enumerate(spectra.values()):
        total = sum(values) or 1.0
        parts = [100 * part / total for part in accumulate(values)]
        axes.plot(range(1, len(parts) + 1), parts, **_line(i))
    axes.set_xscale("log")
    axes.set_ylim(0, 102)
    axes.set_xlabel("number of directions")
    axes.set_ylabel("variance (%)")
    _legend_of_lines(figure, {name: i for i, name in enumerate(spectra)})
    return figure


@rc_context(STYLE)
def draw_lids(lids: Mapping[str, Sequence[float]]) -> Figure:
    """Draw histograms of the LID of the points, each with a vertical line at its geometric mean.

    Outliers, such as points whose neighbours are all equally far, are only counted in the title.
    """
    figure, axes = _one_plot("Local intrinsic dimensionality of " + ", ".join(lids), 3.0, lids)
    logs = {name: [math.log(max(value, 1e-3)) for value in values] for name, values in lids.items()}
    limits = [_lid_limits(sorted(each)) for each in logs.values()]
    low, high = min(limit[0] for limit in limits) - 0.05, max(limit[1] for limit in limits) + 0.05
    edges = [math.exp(low + (high - low) * i / 48) for i in range(49)]
    for i, values in enumerate(logs.values()):
        shown = [math.exp(log) for log in values if low <= log <= high]
        axes.hist(shown, edges, weights=[100 / len(values)] * len(shown), histtype="step", **_line(i))
        axes.axvline(math.exp(min(max(fmean(values), low), high)), **{**_line(i), "linewidth": 1.0})
    outside = sum(not low <= log <= high for values in logs.values() for log in values)
    if outside:
        axes.set_title(f"{outside} points are outside {edges[0]:.3g} to {edges[-1]:.3g}", fontsize=10)
    axes.set_xscale("log")
    axes.set_xlim(edges[0], edges[-1])
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high - low < 5.5 else (1,), numticks=9))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("LID of a point (line: geometric mean)")
    axes.set_ylabel("points (%)")
    _legend_of_lines(figure, {name: i for i, name in enumerate(lids)})
    return figure


@rc_context(STYLE)
def draw_lid_by_k(
    curves: Mapping[str, Mapping[int, tuple[float, float, float]]], known: Collection[Curve] = ()
) -> Figure:
    """Draw the mean LID over the number of neighbours, with the interval as a band.

    Args:
        curves: For each input, by name, the LID and the ends of its interval for each number of neighbours.
        known: The LID of each network of the atlas, which is drawn thin.
    """
    names = {name: i for i, name in enumerate(curves)} | ({"trained here": GREY} if known else {})
    figure, axes = _one_plot("LID over the number of neighbours of " + ", ".join(curves), 3.0, names)
    for each in known:
        axes.plot(list(each), list(each.values()), **{**_line(GREY), "linewidth": 0.8})
    for i, curve in enumerate(curves.values()):
        values, low, high = zip(*curve.values(), strict=True) if curve else ((), (), ())
        axes.plot(list(curve), values, marker=".", **_line(i))
        axes.fill_between(list(curve), low, high, color=_line(i)["color"], alpha=0.25, linewidth=0)
    sizes = sorted({k for curve in (*curves.values(), *known) for k in curve})
    if sizes:  # there are no sizes for a few points
        axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(k) for k in sizes])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("number of neighbours")
    axes.set_ylabel("LID (geometric mean)")
    _legend_of_lines(figure, names)
    return figure


@rc_context(STYLE)
def draw_atlas(shares: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> Figure:
    """Draw parts of the attainable effective rank on a line for each network, highest first.

    Args:
        shares: For each group of networks, by its name, the part and the ends of its interval, by name of the
            network. The last group is the one that is looked at; its names are bold.
    """
    every = [(name, i, *ends) for i, group in enumerate(shares.values()) for name, ends in group.items()]
    every.sort(key=lambda each: each[2], reverse=True)
    height = 0.9 + 0.24 * len(every)
    figure, axes = _one_plot("Effective rank over the attainable one among known networks", height, shares)
    marks: Any = [
        {"marker": mark, "color": COLOURS[i]} for i, mark in zip((GREY, 0, 5), ("o", "D", "s"), strict=True)
    ]
    for y, (_, group, share, low, high) in enumerate(every):
        axes.plot([low, high], [y, y], color=marks[group]["color"])
        axes.plot([share], [y], linestyle="", **marks[group])
    axes.set_yticks(range(len(every)), [shorten(each[0], 48) for each in every], fontsize=8)
    for label, each in zip(axes.get_yticklabels(), every, strict=True):
        label.set_fontweight("bold" if each[1] == len(shares) - 1 else "normal")
    axes.set_ylim(len(every) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel("effective rank / attainable")
    _legend(figure, [Line2D([], [], linestyle="", **mark) for mark in marks], list(shares))
    return figure


def _lid_limits(logs: Sequence[float]) -> tuple[float, float]:
    """Return the smallest and the largest of sorted logarithms, without outliers such as the one of 1e7."""
    quarter, middle = len(logs) // 4, logs[len(logs) // 2]
    room = max(LID_SPREADS * (logs[-1 - quarter] - logs[quarter]), math.log(LID_RATIO))
    return max(logs[0], middle - room), min(logs[-1], middle + room)


@rc_context(STYLE)
def draw_correlation(correlation: Sequence[Sequence[float]], name: str) -> Figure:
    """Draw the absolute correlations of the axes, (D, D), or their means in square blocks, as a heat map."""
    figure, axes = _one_plot(f"Absolute correlation of the axes of {name}", 4.4)
    axes.set_title(shorten(name), fontsize=10)
    picture = axes.imshow(correlation, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    figure.colorbar(picture, label="absolute correlation")
    return figure


def _one_plot(description: str, height: float, legend: Collection[str] = ()) -> tuple[Figure, Any]:
    figure = Figure(figsize=(WIDTH, height + (_legend_height(legend) if legend else 0)))
    figure.set_label(description)
    return figure, figure.add_subplot()


def _draw_seeds(axes: Any, curves: Sequence[Curve], style: dict[str, Any]) -> Any:
    shared = sorted(set.intersection(*(set(curve) for curve in curves)))
    if len(curves) > 1:
        for curve in curves:
            epochs = sorted(curve)
            axes.plot(epochs, [curve[epoch] for epoch in epochs], alpha=0.4, **{**style, "linewidth": 0.7})
    means = [fmean(curve[epoch] for curve in curves) for epoch in shared]
    # A single value has no line, so it is drawn as a point.
    return axes.plot(shared, means, marker="." if len(shared) == 1 else None, **style)[0]


def _line(i: int) -> dict[str, Any]:
    return {
        "color": COLOURS[i % len(COLOURS)],
        "linestyle": LINES[(i + i // len(COLOURS)) % len(LINES)],
        "linewidth": STYLE["lines.linewidth"],
    }


def shorten(name: str, length: int = 28) -> str:
    """Return the name, without its middle if it is too long for a plot."""
    kept = (length - 1) // 2
    return name if len(name) <= length else f"{name[:kept]}…{name[-kept:]}"


def _legend_columns(labels: Iterable[str]) -> int:
    return max(1, min(4, 56 // (max(len(shorten(label)) for label in labels) + 7)))


def _legend_height(labels: Collection[str]) -> float:
    return 0.1 + 0.21 * math.ceil(len(labels) / _legend_columns(labels))


def _legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Draw the legend below the axes, where it covers nothing, in as many columns as fit."""
    figure.legend(handles, labels, loc="outside lower center", ncols=_legend_columns(labels), fontsize=10)


def _legend_of_lines(figure: Figure, places: Mapping[str, int]) -> None:
    """Draw a legend of names and lines; matplotlib's own legend leaves out names that start with ``_``."""
    handles = [Line2D([], [], **_line(place)) for place in places.values()]
    _legend(figure, handles, [shorten(name) for name in places])


def save_png(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG file of 256 colours, in one step."""
    buffer, small = io.BytesIO(), io.BytesIO()
    figure.savefig(buffer, dpi=150, format="png", facecolor="white")
    Image.open(buffer).convert("RGB").quantize(256).save(small, "png", optimize=True)
    write_bytes(path, small.getvalue())


def svg(figure: Figure) -> tuple[bytes, bytes]:
    """Return the figure as transparent SVG files, whose axes and text show on a light and on a dark page."""
    buffer = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "solo-dimreg"}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    picture = buffer.getvalue()
    # Only the styles of matplotlib have this colour after a colon.
    return picture, picture.replace(f": {INK}".encode(), f": {INK_ON_DARK}".encode())
