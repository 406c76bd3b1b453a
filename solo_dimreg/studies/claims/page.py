"""Decide the claims of a study and their replications, say it in words, and write their page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from solo_dimreg.diagnosis.templating import SIGNS, render
from solo_dimreg.files import write_json, write_text
from solo_dimreg.reports.provenance import what_ran
from solo_dimreg.studies.claims.claim import (
    CHOSEN,
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
from solo_dimreg.studies.claims.pictures import main_plot, plots_of_claim

TEMPLATES = Path(__file__).parent / "templates"
HEADER = ("claim", "paper", "says", "published", "here", "again", "verdict")
KINDS = {
    **{HOLDS: "good", NOT_SHOWN: "warning", OPPOSITE: "bad", CONTRADICTED: "bad"},
    **{UNFINISHED: "unknown", CHOSEN: "unknown"},
}
MANY = 5  # looks, without which a curve has no last fifth
# The singular and the plural of a count.
COUNTED = {
    HOLDS: ("holds here", "hold here"),
    NOT_SHOWN: ("is not shown here", "are not shown here"),
    OPPOSITE: ("is opposite here", "are opposite here"),
    CONTRADICTED: ("is contradicted", "are contradicted"),
    UNFINISHED: ("is unfinished", "are unfinished"),
    CHOSEN: (f"is {CHOSEN}", f"are {CHOSEN}"),
}
UNKNOWN = "not known"
SHOWN = 3  # numbers of a claim that are shown

# An outcome as in ``claims.json``.
Told = Mapping[str, Any]


def word(outcome: Told) -> str:
    """Return the verdict of an outcome without the number of seeds that are done."""
    return str(outcome["verdict"]).partition(",")[0]


def says(outcome: Told) -> str:
    """Return the verdict of an outcome; if it is decided, with its numbers and their intervals."""
    return str(outcome["verdict"]) + ("" if word(outcome) == UNFINISHED else f": {measured(outcome)}")


def measured(outcome: Told) -> str:
    """Return the first means of an outcome with their intervals, in one text."""
    shown = effects(outcome)
    more = len(shown) - SHOWN
    if set(shown) == {UNKNOWN}:
        return UNKNOWN
    return "; ".join([*shown[:SHOWN], *([f"and {more} more"] if more > 0 else [])])


def effects(outcome: Told) -> list[str]:
    """Return the mean of each number of an outcome with its interval, as texts."""
    return [_effect(each, each.get("unit", outcome["unit"])) for each in outcome["numbers"]]


def _effect(number: Mapping[str, Any], unit: str) -> str:
    """Return a mean to two digits, with its unit, the 95 % interval in parentheses, and the limit.

    Where the limit is 0, the mean is a difference, and its sign says on which side it is.
    """
    if number.get("mean") is None or not math.isfinite(number["mean"]):  # null is NaN in JSON
        return UNKNOWN
    is_difference, unit = number["to_be"] == "above 0", unit and f" {unit}"
    size = abs(number["mean"])
    places = max(0, 1 - math.floor(math.log10(size))) if size else 2
    side, limit = number["to_be"].split()
    if not is_difference and round(number["mean"], places) == float(limit):
        places += 1  # so that one sees on which side of the limit it is
    mean, low, high = (f"{number[key]:.{places}f}".replace("-", "−") for key in ("mean", "low", "high"))
    if is_difference:
        return f"{'' if mean.startswith('−') else '+'}{mean}{unit} ({low} to {high})"
    return f"{mean}{unit} ({low} to {high}; must be {side} {limit.replace('-', '−')}{unit})"


def counted(outcomes: Sequence[Told]) -> str:
    """Return the number of claims, and how many have each verdict."""
    words = Counter(map(word, outcomes))
    counts = [f"{n} {COUNTED[each][n > 1]}" for each in COUNTED if (n := words[each])]
    return f"{len(outcomes)} {'claim' if len(outcomes) == 1 else 'claims'}: {', '.join(counts)}"


def regime(outcomes: Sequence[Told]) -> str:
    """Return the setting of our trainings in brackets, for the head of a table."""
    regimes = dict.fromkeys(each["regime"] for each in outcomes if each["regime"])
    return f" ({'; '.join(regimes)})" if regimes else ""


def published(outcome: Told) -> str:
    """Return what a paper says, where, and how its setting differs."""
    differs = f". The paper's setting: {outcome['differs']}" if outcome["differs"] else ""
    return f"{outcome['published']} ({outcome['place']}){differs}"


def rows(told: Sequence[Told]) -> list[list[str]]:
    """Return the cells of the table, as text."""
    return [
        [
            *(each["name"], each["paper"], each["sentence"]),
            *(published(each), measured(each), each["again"] or "–", each["verdict"]),
        ]
        for each in told
    ]


def _numbers(told: Told) -> list[list[str]]:
    return [
        [
            *(each["says"], each["to_be"], f"{each['mean']:.4g}"),
            *(f"{each['low']:.3g} to {each['high']:.3g}", f"{each['p']:.2g}", f"{each['p_opposite']:.2g}"),
        ]
        for each in told["numbers"]
    ]


def _values_by_seed(told: Told, seeds: Sequence[int]) -> list[list[str]]:
    columns = [each["values"] for each in told["numbers"]]
    return [
        [f"seed {seed}", *(f"{value:.4g}" for value in values)]
        for seed, values in zip(seeds, zip(*columns, strict=True), strict=False)
    ]


class LastFifth(NamedTuple):
    """How much the last fifth of the training changed a metric of a row, in percent.

    Attributes:
        mean: The change of the mean over the seeds, which says whether the trainings have ended.
        single: The mean absolute change of one training. It is larger by what one look differs from the next.
    """

    mean: float
    single: float


def last_fifth(results: Sequence[Results]) -> dict[str, list[LastFifth | None]]:
    """Return for each trained row the last fifth of the online accuracy and of the effective rank.

    None stands for what is not recorded.
    """
    found: dict[str, list[LastFifth | None]] = {}
    for row in dict.fromkeys(name for seed in results for name, run in seed.items() if "method" in run):
        for metric in ("val_acc1", "effective_rank"):
            curves = [curve_of(row, metric, seed) for seed in results if row in seed]
            ends = [(each[round(0.8 * (len(each) - 1))], each[-1]) for each in curves if len(each) > MANY]
            found.setdefault(row, []).append(_changes(ends))
    return found


def _changes(ends: Sequence[tuple[float, float]]) -> LastFifth | None:
    ends = [each for each in ends if each[0]]
    if not ends:
        return None
    before, end = (sum(values) for values in zip(*ends, strict=True))
    single = sum(abs(each / first - 1) for first, each in ends) / len(ends)
    return LastFifth(100 * (end / before - 1), 100 * single)


def by_seed(content: Mapping[str, Any]) -> list[Results]:
    """Return what is done of each seed, by row and experiment, from the content of ``results.json``."""
    found: dict[int, dict[str, Any]] = {seed: {} for seed in content["planned_seeds"]}
    for run in content["runs"]:
        found[run["seed"]][run["row"]] = run
    for name, measured in content["experiments"].items():
        for seed, values in measured.items():
            found[int(seed)][name] = values
    return list(found.values())


def write_outcomes(
    out: Path,
    content: Mapping[str, Any],
    claims: Sequence[Claim],
    known: Sequence[Claim],
    about: Mapping[str, Any],
    command: str,
) -> list[Outcome]:
    """Decide claims, and write ``claims.json`` and ``claims.html``.

    Args:
        known: All known claims, see :func:`solo_dimreg.studies.claims.claim.decide`.
        about: What ``claims.json`` says of the setting: ``why``, ``options``, ``overrides``, ``headlines``.
        command: The command line that repeats the run, with ``NAME`` for the name of a claim.
    """
    results, seeds = by_seed(content), content["planned_seeds"]
    outcomes = decide(claims, results, known)
    if beside := content.get("beside"):
        again = replications(claims, known, beside, content["runs"], seeds)
        outcomes = [replace(each, again=again[each.claim.name]) for each in outcomes]
    for i, each in enumerate(outcomes):
        if each.claim.was_chosen_on(seeds) and not each.verdict.startswith(UNFINISHED):
            outcomes[i] = replace(each, verdict=CHOSEN)
    told = [outcome.as_dict() for outcome in outcomes]
    write_json(out / "claims.json", {"rule": RULE, "seeds": seeds, **about, "outcomes": told})
    kinds = {each["verdict"]: KINDS[word(each)] for each in told}
    named = {outcome.claim.name: outcome for outcome in outcomes}
    # The experiments train nothing and have no method.
    trained = [run for seed in results for run in seed.values() if "method" in run]
    why = f"{about['why'] or 'as the study says'}. {state(content)}"
    page = render(
        TEMPLATES / "claims.html.j2",
        title="Claims of the papers, tested",
        summary=counted(told),
        setting=f"Seeds {seeds[0]} to {seeds[-1]}, {command}: {why}",
        rule=RULE,
        header=[f"here{regime(told)}" if name == "here" else name for name in HEADER],
        signed_rows=[[*row, f"{SIGNS[kinds[last]]} {last}"] for *row, last in rows(told)],
        kinds=kinds,
        headlines=[named[name] for name in about.get("headlines", ())],
        says=lambda outcome: says(outcome.as_dict()),
        outcomes=outcomes,
        main_plot=partial(main_plot, results=results),
        numbers=_numbers,
        plots_of_claim=partial(plots_of_claim, results=results),
        values_by_seed=partial(_values_by_seed, seeds=seeds),
        command=command,
        last_fifth=[
            [row, *("not recorded" if each is None else _percents(each) for each in changes)]
            for row, changes in last_fifth(results).items()
        ],
        ran=what_ran(trained) if trained else [],
    )
    write_text(out / "claims.html", page)
    return outcomes


def replications(
    claims: Sequence[Claim],
    known: Sequence[Claim],
    beside: Sequence[Mapping[str, Any]],
    runs: Sequence[Mapping[str, Any]],
    seeds: Sequence[int],
) -> dict[str, str]:
    """Return for each claim the verdicts of its replications, each with what was other in it.

    ``runs`` with ``seeds`` decide the claims. ``beside`` are recorded runs with other seeds, or on another
    machine or solo-learn.
    """
    usual = {_ran(run, "processor") for run in runs}
    ours = {_ran(run, "solo-learn").partition(" ")[0] for run in runs}
    groups: dict[tuple[str, ...], dict[int, dict[str, Any]]] = {}
    for run in sorted(beside, key=lambda run: str(run.get("finished"))):
        processor = _ran(run, "processor") if run["place"] or _ran(run, "processor") not in usual else ""
        solo_learn = _ran(run, "solo-learn").partition(" ")[0]
        key = "" if run["seed"] in seeds else "other", solo_learn, processor
        groups.setdefault(key, {}).setdefault(run["seed"], {})[run["row"]] = run
    found: dict[str, list[str]] = {claim.name: [] for claim in claims}
    for (other, solo_learn, processor), group in groups.items():
        tried = sorted(group) if other else seeds
        results = [group.get(seed, {}) for seed in tried] + [{}] * (len(seeds) - len(tried))
        several = f"seeds {tried[0]} to {tried[-1]}" if len(tried) > 1 else f"seed {tried[0]}"
        what = [several] if other else []
        what += [f"{solo_learn} solo-learn"] if solo_learn and solo_learn not in ours else []
        what += [processor] if processor else []
        for outcome in decide(claims, results, known):
            done = any(math.isfinite(value) for value in outcome.values[0])
            if done and not outcome.claim.was_chosen_on(tried):
                found[outcome.claim.name].append(f"{outcome.verdict} ({', '.join(what)})")
    return {name: "; ".join(texts) for name, texts in found.items()}


def _ran(run: Mapping[str, Any], key: str) -> str:
    """Return what a run ran on: the version of a package, or the processor."""
    return str((run.get("environment") or {}).get(key, ""))


def state(content: Mapping[str, Any]) -> str:
    """Return sentences on how many runs there are, what they ran on, and whether they are long enough."""
    if not content["planned_runs"]:
        return "No network is trained."
    runs, keys = content["runs"], ("solo-learn", "processor")
    where = [f"{key} {', '.join(sorted({_ran(run, key) for run in runs} - {''}))}" for key in keys]
    said = f"{len(runs)} of {content['planned_runs']} trainings are finished"
    said += f" ({'; '.join(where)})." if runs else "."
    changes = [[each for each in row if each is not None] for row in last_fifth(by_seed(content)).values()]
    if whole := [row for row in changes if len(row) == 2]:
        small = [sum(abs(row[i].mean) < 1 for row in whole) for i in range(2)]
        single = [sum(row[i].single for row in whole) / len(whole) for i in range(2)]
        said += (
            " Averaged over the seeds, the last fifth of the training changes the online accuracy by less "
            f"than 1 % in {small[0]} and the effective rank in {small[1]} of {len(whole)} rows. A single "
            f"training changes by {single[0]:.1f} and {single[1]:.1f} %, up or down."
        )
    return said


def _percents(change: LastFifth) -> str:
    return f"{change.mean:+.1f} % (a single one: {change.single:.1f} %)"
