"""Draw the plots of a claim: its effect over the training, its curves and spectra."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from textwrap import fill

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from solo_dimreg import plots
from solo_dimreg.diagnosis.templating import Card
from solo_dimreg.metrics.explanations import SPECTRUM, Explanation, explain
from solo_dimreg.studies.claims.claim import Claim, Outcome
from solo_dimreg.studies.claims.measures import MEASURES
from solo_dimreg.studies.claims.numbers import Results, called, span
from solo_dimreg.studies.statistics import Estimate, estimate

CURVES = ("effective_rank", "z_effective_rank", "mutual_information", "adadim_alpha")
SYMBOLS = ("H(R), effective rank", "H(Z), effective rank", "I(R;Z), nats", "alpha (AdaDim)")
ROWS_IN_A_PLOT = len(plots.COLOURS)
MARKS = (100, 300, 1_000, 3_000)  # steps
# What is measured while a network is trained, instead of what is measured at the end.
ONLINE = dict.fromkeys(("linear_acc1", "knn_acc1"), "val_acc1")
EFFECTS = Explanation(
    "",
    "The paired differences of rows over the training, by the monitor or the online classifier; bars are "
    "95 % intervals over the seeds.",
)
LINES = Explanation(
    "", "The monitored metrics over the training; thin lines are seeds, thick ones their means."
)
POINTS = Explanation(
    "", "Dots are networks: the metric without labels, and the accuracy that it should order."
)
VALUES = Explanation(
    "",
    "Grey dots are networks, and a line joins those of one seed; beside them are the means with their 95 % "
    "intervals.",
)
TIME_AXES = ("predicted time (steps x learning rate)", "measured time")
TIMES = Explanation("", "Dots are dimensions, of all seeds; on the line, the theory is exact.")


def plots_of_claim(outcome: Outcome, results: Sequence[Results]) -> Iterator[Card]:
    """Yield the plots of one claim: its main one, and the spectra of its rows."""
    if card := main_plot(outcome, results):
        yield card
    names, first = outcome.claim.rows, results[0]
    spectra = {name: first[name]["spectrum"] for name in names if first.get(name, {}).get("spectrum")}
    if spectra and len(names) <= ROWS_IN_A_PLOT:
        of_first_seed = replace(SPECTRUM, text=f"{SPECTRUM.text} These are from the first seed.")
        yield Card(plots.draw_spectra(spectra, names), of_first_seed)


def main_plot(outcome: Outcome, results: Sequence[Results]) -> Card | None:
    """Return the plot that shows a claim best, from the seeds that are done, or None.

    It has the paired differences over the training; or for a claim about curves these, for one about
    Kendall's tau the networks, for stepwise learning the times, and for what is only measured at the end the
    values of each seed.
    """
    claim = outcome.claim
    results = results[: claim.seeds]
    metrics = {name for number in claim.numbers for name in number.metrics}
    if not metrics & {*CURVES[2:]} and (effects := effects_over_training(claim, results)):
        return Card(draw_effects(claim, effects), EFFECTS)
    if any(len(number.rows) > 2 and "linear_acc1" in number.metrics for number in claim.numbers):
        clouds = {
            span(number.rows): [
                (run[number.metrics[0]], run["linear_acc1"])
                for seed in results
                for run in map(seed.get, number.rows)
                if run and run.get(number.metrics[0]) is not None and "linear_acc1" in run
            ]
            for number in claim.numbers
        }
        found = {name: cloud for name, cloud in clouds.items() if cloud}
        name = explain(claim.numbers[0].metrics[0]).label
        return Card(draw_points(found, name, "linear accuracy (%)"), POINTS) if found else None
    if "stepwise_learning" in claim.experiments:
        measured = [seed["stepwise_learning"] for seed in results if "stepwise_learning" in seed]
        times = [pair for each in measured for pair in zip(each["predicted"], each["measured"], strict=True)]
        figure = draw_points({"": times}, *TIME_AXES, diagonal=True) if times else None
        return Card(figure, TIMES) if figure else None
    names = list(dict.fromkeys([*claim.beside, *claim.rows]))
    if len(metrics) == 1 and metrics <= MEASURES.keys():
        (metric,) = metrics
        values = [
            {name: value for name in names if (value := seed.get(name, {}).get(metric)) is not None}
            for seed in results
        ]
        names = [name for name in names if any(name in seed for seed in values)]
        return Card(draw_values(values, names, called(metric)), VALUES) if any(values) else None
    shown = CURVES if metrics & {*CURVES[2:]} else CURVES[:1] if metrics <= {*CURVES[:1]} else ()
    panels = {
        symbol: {name: curves for name in names if (curves := _curves(name, curve, results))}
        for symbol, curve in zip(SYMBOLS, shown, strict=False)
    }
    panels = {symbol: panel for symbol, panel in panels.items() if panel}
    if panels and len(names) <= ROWS_IN_A_PLOT:
        figure = plots.draw_curves(panels, names, "step")
        of_one_row = [each for each in claim.numbers if len(each.rows) == 1 and each.parts]
        limits = {each.limit for each in of_one_row if each.limit and each.metrics == CURVES[:1]}
        if limits and SYMBOLS[0] in panels:
            _draw_limits(figure.axes[0], limits)
        return Card(figure, LINES)
    return None


def _draw_limits(axes: Axes, limits: Collection[float]) -> None:
    """Draw the limits that a claim sets for a rank, on a logarithmic axis."""
    for limit in limits:
        axes.axhline(limit, color=plots.INK, linestyle=":", linewidth=1)
        axes.annotate(
            f"limit {limit:g}", (1, limit), (-2, 2), ("axes fraction", "data"), "offset points", ha="right"
        )
    axes.set_yscale("log")
    axes.set_ylim(bottom=min(min(limits) / 2, axes.get_ylim()[0]))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()


def _curves(row: str, metric: str, results: Sequence[Results]) -> list[dict[int, float]]:
    """Return a row's monitored metric by the number of steps, for each seed that is done."""
    runs = [seed[row] for seed in results if row in seed]
    found = [
        {round((epoch + 1) * run["steps"] / run["epochs"]): each for epoch, each in curve.items()}
        for run in runs
        if run.get("steps") and (curve := run["curves"].get(metric)) and None not in curve.values()
    ]
    return [curve for curve in found if curve.keys() & found[0].keys()]


def effects_over_training(claim: Claim, results: Sequence[Results]) -> dict[str, dict[int, Estimate]]:
    """Return for each number that is a difference of two rows this difference by the number of steps.

    It is that of the number's metric at every look that both rows had on all seeds that are done; of an
    accuracy, it is the online classifier's.
    """
    found = {}
    for number in claim.numbers:
        if len(number.rows) != 2 or len(number.parts) != 2 or len(number.metrics) != 1:
            continue
        (smaller, larger), metric = number.rows, ONLINE.get(number.metrics[0], number.metrics[0])
        both = [seed for seed in results if seed.keys() >= {smaller, larger}]
        curves = [_curves(row, metric, both) for row in (larger, smaller)]
        if not len(curves[0]) == len(curves[1]) == len(both) > 1:
            continue
        steps = sorted(set.intersection(*(set(curve) for row in curves for curve in row)))
        pairs = list(zip(*curves, strict=True))
        if len(steps) > 1:
            found[f"{larger} - {smaller}"] = {
                step: estimate([one[step] - other[step] for one, other in pairs]) for step in steps
            }
    return found


@rc_context(plots.STYLE)
def draw_effects(claim: Claim, effects: Mapping[str, Mapping[int, Estimate]]) -> Figure:
    """Return a figure of paired differences over the steps, with intervals near 100, 300, 1,000, 3,000."""
    figure = Figure(figsize=(plots.WIDTH, 2.8))
    figure.set_label(f"{claim.name} over the training")
    axes = figure.add_subplot()
    for place, (label, effect) in enumerate(effects.items()):
        steps, colour = list(effect), plots.COLOURS[place % ROWS_IN_A_PLOT]
        line = plots.LINES[place % len(plots.LINES)]
        axes.plot(steps, [effect[step].mean for step in steps], line, color=colour, label=label)
        marked = {min(steps, key=lambda step: abs(math.log(step / mark))) for mark in MARKS} | {steps[-1]}
        for step in sorted(marked):
            each = effect[step]
            errors = [[each.mean - each.low], [each.high - each.mean]]
            shifted = step * 1.03 ** (place - (len(effects) - 1) / 2)  # beside each other
            axes.errorbar(shifted, each.mean, yerr=errors, fmt="o", color=colour, capsize=3, ms=4)
    axes.axhline(0, color=plots.INK, linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks(sorted(marked), [f"{step:,}" for step in sorted(marked)])
    axes.minorticks_off()
    axes.set_xlabel("step (logarithmic)")
    metric = claim.numbers[0].metrics[0]
    online = metric in ONLINE
    axes.set_ylabel(
        "online accuracy,\ndifference (points)" if online else f"{metric.replace('_', ' ')},\ndifference"
    )
    axes.legend(fontsize=9)
    return figure


@rc_context(plots.STYLE)
def draw_values(seeds: Sequence[Mapping[str, float]], rows: Sequence[str], metric: str) -> Figure:
    """Return a figure of one value of each row and seed, with the means and their intervals."""
    figure = Figure(figsize=(plots.WIDTH, 2.8))
    figure.set_label(f"{metric} by seed")
    axes = figure.add_subplot()
    for seed in seeds:
        found = [(place, seed[row]) for place, row in enumerate(rows) if row in seed]
        if found:
            axes.plot(*zip(*found, strict=True), "o-", color=plots.COLOURS[plots.GREY], linewidth=0.7, ms=3)
    for place, row in enumerate(rows):
        values = [seed[row] for seed in seeds if row in seed]
        if len(values) > 1:
            each = estimate(values)
            errors = [[each.mean - each.low], [each.high - each.mean]]
            colour = plots.COLOURS[place % ROWS_IN_A_PLOT]
            axes.errorbar(place + 0.12, each.mean, yerr=errors, fmt="o", color=colour, capsize=3)
    axes.set_xticks(range(len(rows)), [fill(row.replace("_", " "), 12) for row in rows])
    axes.set_xlim(-0.5, len(rows) - 0.5)
    axes.set_ylabel(f"{metric} (%)" if "accuracy" in metric else metric)
    return figure


@rc_context(plots.STYLE)
def draw_points(
    clouds: Mapping[str, Sequence[tuple[float, float]]], across: str, up: str, diagonal: bool = False
) -> Figure:
    """Return a figure of clouds of points, with the names of its axes."""
    figure = Figure(figsize=(plots.WIDTH, 2.8))
    figure.set_label(f"{up} over {across}")
    axes = figure.add_subplot()
    for place, (name, points) in enumerate(clouds.items()):
        axes.plot(*zip(*points, strict=True), "oD"[place % 2], ms=4, color=plots.COLOURS[place], label=name)
    if diagonal:
        axes.axline((0, 0), slope=1, color=plots.INK, linewidth=1)
        axes.set(xlim=(0, None), ylim=(0, None))
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    if any(clouds):
        axes.legend(fontsize=9)
    return figure
