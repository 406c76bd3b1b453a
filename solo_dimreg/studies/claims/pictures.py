"""Draw the plots of claims: all claims at a glance, and the seeds, curves and spectra of one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from matplotlib import rc_context
from matplotlib.figure import Figure

from solo_dimreg import plots
from solo_dimreg.diagnosis.templating import Card
from solo_dimreg.metrics.explanations import SPECTRUM, Explanation, explain
from solo_dimreg.studies.claims.claim import CONTRADICTED, HOLDS, NOT_SHOWN, OPPOSITE, Claim, Outcome
from solo_dimreg.studies.claims.numbers import Results
from solo_dimreg.studies.statistics import Estimate, estimate

COLOURS = {
    HOLDS: plots.COLOURS[2],
    NOT_SHOWN: plots.COLOURS[7],
    OPPOSITE: plots.COLOURS[5],
    CONTRADICTED: plots.COLOURS[5],
}
MARKERS = {HOLDS: "o", NOT_SHOWN: "s", OPPOSITE: "v", CONTRADICTED: "X"}
CURVES = ("effective_rank", "lid", "mutual_information", "adadim_alpha")
ROWS_IN_A_PLOT = len(plots.COLOURS)
MARKS = (100, 300, 1_000, 3_000)  # steps
ONLINE = {"linear_acc1": "val_acc1", "knn_acc1": "val_acc1"}  # what is measured while a network is trained
EFFECTS = Explanation(
    "",
    "The paired difference of the two rows over the training, by the monitor or the online classifier; "
    "bars are 95 % intervals over the seeds.",
)
SEEDS = Explanation("", "Dots are seeds; bars are the means and their 95 % intervals.")
FAR = 12.0  # standard errors beyond which a claim is drawn at the edge


@rc_context(plots.STYLE)
def draw_claims(outcomes: Sequence[Outcome]) -> Figure:
    """Return a figure with each claim's deciding number over its standard error, with its interval."""
    figure = Figure(figsize=(plots.WIDTH * 1.3, 1.3 + 0.24 * len(outcomes)))
    figure.set_label("All claims, in units of their standard errors")
    axes = figure.add_subplot()
    for place, outcome in enumerate(outcomes):
        weakest = outcome.estimates[outcome.weakest]
        if outcome.verdict not in COLOURS or not math.isfinite(weakest.mean):
            continue
        # Half of the interval in standard errors; 0 if all seeds are equal.
        t = (weakest.high - weakest.low) / 2 / weakest.error if weakest.error else 0.0
        sure = math.copysign(FAR, weakest.mean) if weakest.mean else 0.0
        shown = max(-FAR, min(FAR, weakest.mean / weakest.error if weakest.error else sure))
        axes.errorbar(
            shown,
            place,
            xerr=t,
            fmt=MARKERS[outcome.verdict],
            color=COLOURS[outcome.verdict],
            capsize=2,
            ms=5,
        )
    for verdict, colour in COLOURS.items():
        axes.plot([], [], MARKERS[verdict], color=colour, label=verdict)
    axes.axvline(0, color=plots.INK, linewidth=1)
    axes.set_yticks(range(len(outcomes)), [outcome.claim.name for outcome in outcomes], fontsize=8)
    axes.set_ylim(len(outcomes) - 0.4, -0.6)
    axes.set_xlim(-FAR - 3, FAR + 3)
    axes.set_xlabel(f"deciding number / its standard error, up to {FAR:g}")
    figure.legend(loc="outside upper center", ncols=4, fontsize=9)
    return figure


def plots_of_claim(outcome: Outcome, results: Sequence[Results]) -> Iterator[Card]:
    """Yield the plots of one claim: its seeds, and the curves and spectra of its rows."""
    yield Card(draw_seeds(outcome), SEEDS)
    if effects := effect_over_training(outcome.claim, results):
        yield Card(draw_effects(outcome.claim, effects), EFFECTS)
    names = outcome.claim.rows
    if not 0 < len(names) <= ROWS_IN_A_PLOT:
        return
    for curve in CURVES if "AdaDim" in outcome.claim.paper else CURVES[:2]:
        found = {name: [s[name]["curves"].get(curve) for s in results if name in s] for name in names}
        panel = {name: [each for each in curves if each] for name, curves in found.items() if any(curves)}
        if panel:
            explanation = explain(curve)
            yield Card(plots.draw_curves({explanation.label: panel}, names), explanation)
    spectra = {
        name: results[0][name]["spectrum"] for name in names if results[0].get(name, {}).get("spectrum")
    }
    if spectra:
        of_first_seed = replace(SPECTRUM, text=f"{SPECTRUM.text} These are from the first seed.")
        yield Card(plots.draw_spectra(spectra, names), of_first_seed)


def effect_over_training(claim: Claim, results: Sequence[Results]) -> dict[int, Estimate]:
    """Return the paired difference of a claim's two rows by the number of steps.

    It is that of the first number's metric at every look that both rows had on all seeds that are done; of
    an accuracy, it is the online classifier's. A claim that is not a difference of two rows has none.
    """
    number = claim.numbers[0]
    if len(claim.rows) != 2 or len(number.rows) != 2 or len(number.parts) != 2 or len(number.metrics) != 1:
        return {}
    (smaller, larger), metric = number.rows, ONLINE.get(number.metrics[0], number.metrics[0])
    pairs = [(seed[larger], seed[smaller]) for seed in results if seed.keys() >= {smaller, larger}]
    curves = [tuple(run.get("curves", {}).get(metric, {}) for run in pair) for pair in pairs]
    if len(curves) < 2 or not all(run.get("steps") for pair in pairs for run in pair):
        return {}
    common = set.intersection(*(set(curve) for pair in curves for curve in pair))
    per_epoch = pairs[0][0]["steps"] / pairs[0][0]["epochs"]
    found = {
        round((epoch + 1) * per_epoch): estimate([one[epoch] - other[epoch] for one, other in curves])
        for epoch in sorted(common)
        if all(curve[epoch] is not None for pair in curves for curve in pair)
    }
    return found if len(found) > 1 else {}


@rc_context(plots.STYLE)
def draw_effects(claim: Claim, effects: Mapping[int, Estimate]) -> Figure:
    """Return a figure of a paired difference over the steps, with intervals near 100, 300, 1,000, 3,000."""
    figure = Figure(figsize=(plots.WIDTH, 2.6))
    figure.set_label(f"{claim.name} over the training")
    axes = figure.add_subplot()
    steps = list(effects)
    axes.plot(steps, [effects[step].mean for step in steps], color=plots.COLOURS[0])
    marked = {min(steps, key=lambda step: abs(math.log(step / mark))) for mark in MARKS} | {steps[-1]}
    for step in sorted(marked):
        each = effects[step]
        errors = [[each.mean - each.low], [each.high - each.mean]]
        axes.errorbar(step, each.mean, yerr=errors, fmt="o", color=plots.COLOURS[0], capsize=3, ms=4)
    axes.axhline(0, color=plots.INK, linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks(sorted(marked), [f"{step:,}" for step in sorted(marked)])
    axes.minorticks_off()
    axes.set_xlabel("steps")
    axes.set_ylabel(f"{claim.numbers[0].metrics[0].replace('_', ' ')}, difference")
    return figure


@rc_context(plots.STYLE)
def draw_seeds(outcome: Outcome) -> Figure:
    """Return a figure of the claim's numbers, seed by seed, each scaled by its largest value."""
    count = len(outcome.values)
    figure = Figure(figsize=(plots.WIDTH, 1.2 + 0.35 * count))
    figure.set_label(f"{outcome.claim.name}, seed by seed")
    axes = figure.add_subplot()
    for place, (values, found) in enumerate(zip(outcome.values, outcome.estimates, strict=True)):
        values = tuple(filter(math.isfinite, values))
        if not values or not math.isfinite(found.mean):
            continue
        scale = max(map(abs, (*values, found.low, found.high))) or 1.0
        axes.plot([v / scale for v in values], [place] * len(values), "o", alpha=0.6, color=plots.COLOURS[0])
        axes.errorbar(
            found.mean / scale, place,
            xerr=[[(found.mean - found.low) / scale], [(found.high - found.mean) / scale]],
            fmt="|", color=plots.INK, capsize=4,
        )  # fmt: skip
    axes.axvline(0, color="#7F7F7F", linewidth=1)
    axes.set_yticks(range(count), [str(i + 1) for i in range(count)])
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_xticks([-1, -0.5, 0, 0.5, 1])
    axes.set_xlabel("each over its largest value; above 0 as claimed")
    axes.set_ylabel("number")
    return figure
