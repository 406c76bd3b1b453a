"""Decide the claims of a finished study, and write their page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from solo_dimreg.diagnosis.templating import SIGNS, Card, render
from solo_dimreg.errors import ConfigError
from solo_dimreg.files import write_json, write_text
from solo_dimreg.metrics.explanations import Explanation
from solo_dimreg.plots import save_png
from solo_dimreg.reports.provenance import what_ran
from solo_dimreg.studies.claims.claim import (
    CONTRADICTED,
    HOLDS,
    NOT_SHOWN,
    OPPOSITE,
    RULE,
    UNFINISHED,
    Claim,
    Outcome,
    decide,
)
from solo_dimreg.studies.claims.numbers import Results, curve_of
from solo_dimreg.studies.claims.pictures import draw_claims, plots_of_claim
from solo_dimreg.studies.pages import estimate_cells, interval

TEMPLATES = Path(__file__).parent / "templates"
HEADER = ("claim", "paper", "says", "published", "here", "95 % interval", "verdict")
KINDS = {HOLDS: "good", NOT_SHOWN: "warning", OPPOSITE: "bad", CONTRADICTED: "bad", UNFINISHED: "unknown"}
MANY = 5  # looks, without which a curve has no last fifth
OVERVIEW = Explanation(
    "",
    "For each claim, the number that decides it, in units of its standard error, with its 95 % interval. "
    "Right of the line means: as claimed.",
)


def rows(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """Return the cells of the table, as text."""
    return [
        [
            outcome.claim.name,
            f"{outcome.claim.paper}, {outcome.claim.place}",
            outcome.claim.sentence,
            outcome.claim.published,
            *estimate_cells(outcome.as_dict()),
            outcome.verdict,
        ]
        for outcome in outcomes
    ]


def summary(outcomes: Sequence[Outcome]) -> str:
    """Return the number of claims with each verdict, as text."""
    words = [_word(outcome.verdict) for outcome in outcomes]
    return ", ".join(f"{words.count(word)} {word}" for word in KINDS if word in words)


def _regime(outcomes: Sequence[Outcome]) -> str:
    """Return our setting in brackets, for the head of the table."""
    regimes = dict.fromkeys(each.claim.regime for each in outcomes if each.claim.rows and each.claim.regime)
    return f" ({'; '.join(regimes)})" if regimes else ""


def _word(verdict: str) -> str:
    """Return a verdict without the number of seeds that are done."""
    return verdict.partition(",")[0]


def claims_page(
    kind: str,
    outcomes: Sequence[Outcome],
    results: Sequence[Results],
    seeds: Sequence[int],
    why: str,
    command: str,
) -> str:
    """Return the page of claims.

    Args:
        kind: ``html`` for the whole page, ``md`` for the table alone.
        outcomes: The outcomes of the claims.
        results: The results of each seed, for the plots.
        seeds: The seeds.
        why: The reason for this setting.
        command: The command line that repeats the run, with ``NAME`` for the name of a claim.
    """
    return render(
        TEMPLATES / f"claims.{kind}.j2",
        title="Claims of the papers, tested",
        summary=summary(outcomes),
        setting=f"Seeds {seeds[0]} to {seeds[-1]}, {command}: {why or 'as the study says'}.",
        rule=RULE,
        header=[name if name != "here" else f"here{_regime(outcomes)}" for name in HEADER],
        rows=rows(outcomes),
        signed_rows=[[*row, f"{SIGNS[KINDS[_word(last)]]} {last}"] for *row, last in rows(outcomes)],
        kinds={outcome.verdict: KINDS[_word(outcome.verdict)] for outcome in outcomes},
        overview=lambda: Card(draw_claims(outcomes), OVERVIEW),
        outcomes=outcomes,
        numbers=_numbers,
        plots_of_claim=partial(plots_of_claim, results=results),
        values_by_seed=partial(_values_by_seed, seeds=seeds),
        command=command,
        last_fifth=last_fifth(results),
        # The experiments train nothing and have no method.
        ran=what_ran([run for seed in results for run in seed.values() if "method" in run]),
    )


def _numbers(outcome: Outcome) -> list[list[str]]:
    """Return the cells of the table of a claim's numbers."""
    return [
        [number.says, f"{e.mean:.4g}", interval(e.low, e.high), f"{e.p_above:.2g}", f"{e.p_below:.2g}"]
        for number, e in zip(outcome.claim.numbers, outcome.estimates, strict=True)
    ]


def _values_by_seed(outcome: Outcome, seeds: Sequence[int]) -> list[list[str]]:
    """Return the cells of the table of a claim's numbers, with a row for each seed."""
    return [
        [f"seed {seed}", *(f"{value:.4g}" for value in values)]
        for seed, values in zip(seeds, zip(*outcome.values, strict=True), strict=False)
    ]


def last_fifth(results: Sequence[Results]) -> list[list[str]]:
    """Return for each trained row how much the last fifth of its training changed it, in percent.

    A row has the mean over its seeds of the absolute change of the online accuracy and the effective rank.
    """
    found = []
    for row in dict.fromkeys(name for seed in results for name, run in seed.items() if "method" in run):
        cells = [row]
        for metric in ("val_acc1", "effective_rank"):
            curves = [curve_of(row, metric, seed) for seed in results if row in seed]
            ends = [(each[round(0.8 * (len(each) - 1))], each[-1]) for each in curves if len(each) > MANY]
            changes = [100 * abs(end / before - 1) for before, end in ends if before]
            cells.append(f"{sum(changes) / len(changes):.1f} %" if changes else "not recorded")
        found.append(cells)
    return found


def by_seed(content: Mapping[str, Any]) -> list[Results]:
    """Return the results of each seed, by row and experiment, from the content of ``results.json``.

    What is not done is missing.
    """
    found: dict[int, dict[str, Any]] = {seed: {} for seed in content["planned_seeds"]}
    for run in content["runs"]:
        found[run["seed"]][run["row"]] = run
    for name, measured in content["experiments"].items():
        for seed, values in measured.items():
            found[int(seed)][name] = values
    return list(found.values())


def merge_outcomes(file: Path, outcomes: Sequence[Outcome], order: Sequence[str]) -> None:
    """Replace or add outcomes in a ``claims.json`` of other runs, with three digits, in this order.

    Raises:
        ConfigError: The file cannot be read, or has no outcomes.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        found = {each["name"]: each for each in content["outcomes"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--into: {file} must be a claims.json with outcomes ({error!r}).") from error
    for outcome in outcomes:
        made = {key: value for key, value in outcome.as_dict().items() if key not in ("p", "values")}
        rounded = [
            {key: float(f"{each[key]:.3g}") for key in ("mean", "low", "high")} for each in made["estimates"]
        ]
        found[outcome.claim.name] = made | {"estimates": rounded}
    names = [*order, *(name for name in found if name not in order)]
    write_json(file, content | {"rule": RULE, "outcomes": [found[name] for name in names if name in found]})


def write_outcomes(
    out: Path,
    content: Mapping[str, Any],
    claims: Sequence[Claim],
    known: Sequence[Claim],
    about: Mapping[str, Any],
    command: str,
) -> list[Outcome]:
    """Decide claims, and write ``claims.json``, ``claims.md``, ``claims.png`` and ``claims.html``.

    Args:
        out: The folder to write into.
        content: The content of ``results.json``.
        claims: The claims to decide.
        known: All known claims, see :func:`solo_dimreg.studies.claims.claim.decide`.
        about: What ``claims.json`` says of the setting: ``why``, ``options`` and ``overrides``.
        command: The command line that repeats the run, with ``NAME`` for the name of a claim.
    """
    results, seeds = by_seed(content), content["planned_seeds"]
    outcomes = decide(claims, results, known)
    written = [outcome.as_dict() for outcome in outcomes]
    write_json(out / "claims.json", {"rule": RULE, "seeds": seeds, **about, "outcomes": written})
    save_png(draw_claims(outcomes), out / "claims.png")
    for kind in ("md", "html"):
        page = claims_page(kind, outcomes, results, seeds, str(about["why"]), command)
        write_text(out / f"claims.{kind}", page)
    return outcomes
