"""The claims on a page: one line each, unfolding to the numbers, seed by seed."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure

from solo_dimreg import plots
from solo_dimreg.reports import page
from solo_dimreg.studies.claims.claim import RULE, Outcome
from solo_dimreg.studies.claims.statistics import Estimate

HEADER = ("claim", "paper", "says", "published", "here", "95 % interval", "verdict")
COUNTS = ("holds", "not shown", "contradicted")


def rows(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """The cells of the table, as text; the effect is that of the claim's first number."""
    return [
        [
            outcome.claim.name,
            f"{outcome.claim.paper}, {outcome.claim.place}",
            outcome.claim.sentence,
            outcome.claim.published,
            f"{outcome.estimates[0].mean:+.3g} {outcome.claim.unit}".strip(),
            interval(outcome.estimates[0]),
            outcome.verdict,
        ]
        for outcome in outcomes
    ]


def interval(estimate: Estimate) -> str:
    """The interval as text."""
    return f"{estimate.low:+.3g} to {estimate.high:+.3g}"


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many of them hold."""
    counts = [sum(outcome.verdict == verdict for outcome in outcomes) for verdict in COUNTS]
    return ", ".join(f"{count} {verdict}" for count, verdict in zip(counts, COUNTS, strict=True))


def markdown(outcomes: Sequence[Outcome], setting: str) -> str:
    """The table as Markdown."""
    lines = ["# Claims of the papers, tried", "", f"{summary(outcomes)}. {setting}.", "", RULE, ""]
    lines += [f"| {' | '.join(HEADER)} |", f"|{' --- |' * len(HEADER)}"]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows(outcomes)]
    return "\n".join(lines) + "\n"


def html_page(outcomes: Sequence[Outcome], setting: str) -> str:
    """The page with a plot for each claim."""
    table = page.table(HEADER, rows(outcomes), "Claims and what became of them")
    parts = [page.paragraph(f"{summary(outcomes)}. {setting}."), page.paragraph(RULE), table]
    for outcome in outcomes:
        claim = outcome.claim
        numbers = [
            [number.says, f"{e.mean:.4g}", interval(e), f"{e.p_above:.3g}", f"{e.p_below:.3g}"]
            for number, e in zip(claim.numbers, outcome.estimates, strict=True)
        ]
        header = ("must be above 0", "mean", "95 % interval", "p (above)", "p (below)")
        caption = "Dots are seeds, bars the means and their 95 % intervals."
        again = page.strong(f"solo-dimreg claims {claim.name}")
        parts.append(
            page.folded(
                f"{claim.name}: {outcome.verdict}",
                page.paragraph(claim.sentence, f" {claim.paper}, {claim.place}: {claim.published}."),
                page.table(header, numbers, f"The numbers of {claim.name}"),
                page.figures([page.figure(plots.svg(draw(outcome)), caption)]),
                page.paragraph(f"After Holm's correction p = {outcome.p:.3g}. Again: ", again),
            )
        )
    return page.page("Claims of the papers, tried", *parts)


@rc_context(plots.STYLE)
def draw(outcome: Outcome) -> Figure:
    """The claim's numbers, seed by seed, in units of their spread, so that all fit one axis."""
    count = len(outcome.values)
    figure = Figure(figsize=(plots.WIDTH, 1.2 + 0.35 * count))
    figure.set_label(f"{outcome.claim.name}, seed by seed")
    axes = figure.add_subplot()
    for place, (values, estimate) in enumerate(zip(outcome.values, outcome.estimates, strict=True)):
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
