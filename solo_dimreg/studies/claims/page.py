"""Write the page of claims: a table, and for each claim its numbers, figures and command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from solo_dimreg import plots
from solo_dimreg.reports import page
from solo_dimreg.reports.provenance import what_ran
from solo_dimreg.studies.claims.claim import RULE, Outcome, Results
from solo_dimreg.studies.claims.pictures import draw_claims, pictures
from solo_dimreg.studies.claims.statistics import Estimate

HEADER = ("claim", "paper", "says", "published", "here", "95 % interval", "verdict")
BANNERS = {"holds": "good", "not shown": "warning", "contradicted": "bad"}
RAN = ("record", "value")
MOST = 3  # numbers of a claim that the table shows


def rows(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """Return the cells of the table, as text."""
    return [
        [
            outcome.claim.name,
            f"{outcome.claim.paper}, {outcome.claim.place}",
            outcome.claim.sentence,
            outcome.claim.published,
            _few([f"{each.mean:+.3g} {outcome.claim.unit}".strip() for each in outcome.estimates]),
            _few([interval(each) for each in outcome.estimates]),
            outcome.verdict,
        ]
        for outcome in outcomes
    ]


def _few(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - MOST} more" if len(texts) > MOST else ""
    return "; ".join(texts[:MOST]) + more


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def interval(estimate: Estimate) -> str:
    """Return the interval as text."""
    return f"{estimate.low:+.3g} to {estimate.high:+.3g}"


def summary(outcomes: Sequence[Outcome]) -> str:
    """Return the number of claims with each verdict, as text."""
    counts = [sum(outcome.verdict == verdict for outcome in outcomes) for verdict in BANNERS]
    return ", ".join(f"{count} {verdict}" for count, verdict in zip(counts, BANNERS, strict=True))


@dataclass(frozen=True)
class Page:
    """The page of claims.

    Attributes:
        outcomes: The outcomes of the claims.
        results: The results of each seed, for the figures.
        seeds: The seeds.
        why: The reason for this setting.
        options: The options of the command line that repeat the run.
    """

    outcomes: Sequence[Outcome]
    results: Sequence[Results]
    seeds: Sequence[int]
    why: str
    options: str

    @property
    def _where(self) -> str:
        return f". Seeds {self.seeds[0]} to {self.seeds[-1]}, {self.options}: {self.why}."

    def markdown(self) -> str:
        """Return the table as Markdown, with the figure of all claims."""
        lines = ["# Claims of the papers, tested", "", summary(self.outcomes) + self._where, "", RULE, ""]
        lines += ["![All claims](claims.png)", "", f"| {' | '.join(HEADER)} |", f"|{' --- |' * len(HEADER)}"]
        lines += [_line(row) for row in rows(self.outcomes)]
        lines += ["", "## What ran", "", *map(_line, (RAN, ["---"] * len(RAN), *self._ran()))]
        return "\n".join(lines) + "\n"

    def html(self) -> str:
        """Return the whole page as HTML."""
        overview = page.figure(
            plots.svg(draw_claims(self.outcomes)),
            "For each claim, the number that decides it, in units of its standard error, with its 95 % "
            "interval. Right of the line means: as claimed.",
        )
        return page.page(
            "Claims of the papers, tested",
            page.paragraph(page.strong(summary(self.outcomes)), self._where),
            page.paragraph(RULE),
            page.table(HEADER, self._signed(), "Claims and their verdicts"),
            page.figures([overview]),
            *map(self._details, self.outcomes),
            page.section("What ran", page.table(RAN, self._ran(), "What ran")),
        )

    def _ran(self) -> list[list[str]]:
        """Return the environment of the trained rows.

        The experiments train nothing and have no checkpoint.
        """
        return what_ran([run for seed in self.results for run in seed.values() if "checkpoint" in run])

    def _signed(self) -> list[list[str]]:
        return [[*row[:-1], f"{page.SIGNS[BANNERS[row[-1]]]} {row[-1]}"] for row in rows(self.outcomes)]

    def _details(self, outcome: Outcome) -> page.Html:
        claim = outcome.claim
        numbers = [
            [number.says, f"{e.mean:.4g}", interval(e), f"{e.p_above:.2g}", f"{e.p_below:.2g}"]
            for number, e in zip(claim.numbers, outcome.estimates, strict=True)
        ]
        header = ("must be above 0", "mean", "95 % interval", "p (above)", "p (below)")
        seeds = [
            [f"seed {seed}", *(f"{values[i]:.4g}" for values in outcome.values)]
            for i, seed in enumerate(self.seeds)
        ]
        names = [row.name for row in claim.rows]
        trained = ", ".join(names) if len(names) < 10 else f"{len(names)} rows"
        command = page.strong(f"solo-dimreg claims {claim.name} {self.options}")
        drawn = [page.figure(plots.svg(figure), text) for figure, text in pictures(outcome, self.results)]
        return page.folded(
            f"{claim.name}: {outcome.verdict}",
            page.banner(BANNERS[outcome.verdict], outcome.verdict, claim.sentence),
            page.paragraph(f"{claim.paper}, {claim.place}: {claim.published}. {claim.note}"),
            page.table(header, numbers, f"The numbers of {claim.name}"),
            page.figures(drawn),
            page.table(("", *(number.says for number in claim.numbers)), seeds, f"{claim.name}, by seed"),
            page.paragraph(f"After Holm's correction p = {outcome.p:.3g}. Trained: {trained or 'nothing'}."),
            page.paragraph("Command to repeat it: ", command),
        )
