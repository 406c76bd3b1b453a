"""Draw the plots of claims: all claims at a glance, and the seeds, curves and spectra of one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from matplotlib import rc_context
from matplotlib.figure import Figure

from solo_dimreg import plots
from solo_dimreg.diagnosis.templating import Card
from solo_dimreg.metrics.explanations import SPECTRUM, Explanation, explain
from solo_dimreg.studies.claims.claim import CONTRADICTED, HOLDS, NOT_SHOWN, OPPOSITE, Outcome
from solo_dimreg.studies.claims.numbers import Results

COLOURS = {
    HOLDS: plots.COLOURS[2],
    NOT_SHOWN: plots.COLOURS[7],
    OPPOSITE: plots.COLOURS[5],
    CONTRADICTED: plots.COLOURS[5],
}
MARKERS = {HOLDS: "o", NOT_SHOWN: "s", OPPOSITE: "v", CONTRADICTED: "X"}
CURVES = ("effective_rank", "lid", "mutual_information", "adadim_alpha")
ROWS_IN_A_PLOT = len(plots.COLOURS)
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


@rc_context(plots.STYLE)
def draw_seeds(outcome: Outcome) -> Figure:
    """Return a figure of the claim's numbers, seed by seed, each scaled by its largest value."""
    count = len(outcome.values)
    figure = Figure(figsize=(plots.WIDTH, 1.2 + 0.35 * count))
    figure.set_label(f"{outcome.claim.name}, seed by seed")
    axes = figure.add_subplot()
    for place, (values, estimate) in enumerate(zip(outcome.values, outcome.estimates, strict=True)):
        values = tuple(filter(math.isfinite, values))
        if not values or not math.isfinite(estimate.mean):
            continue
        scale = max(map(abs, (*values, estimate.low, estimate.high))) or 1.0
        axes.plot([v / scale for v in values], [place] * len(values), "o", alpha=0.6, color=plots.COLOURS[0])
        axes.errorbar(
            estimate.mean / scale, place,
            xerr=[[(estimate.mean - estimate.low) / scale], [(estimate.high - estimate.mean) / scale]],
            fmt="|", color=plots.INK, capsize=4,
        )  # fmt: skip
    axes.axvline(0, color="#7F7F7F", linewidth=1)
    axes.set_yticks(range(count), [str(i + 1) for i in range(count)])
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_xticks([-1, -0.5, 0, 0.5, 1])
    axes.set_xlabel("each over its largest value; above 0 as claimed")
    axes.set_ylabel("number")
    return figure
