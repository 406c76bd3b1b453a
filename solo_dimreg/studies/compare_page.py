"""Write the page of a comparison: the answer, its numbers and plots, and the config to take."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from omegaconf import OmegaConf

from solo_dimreg import plots
from solo_dimreg.config.overrides import read_overrides
from solo_dimreg.diagnosis.templating import Card, render
from solo_dimreg.errors import ConfigError
from solo_dimreg.files import write_json, write_text
from solo_dimreg.metrics.explanations import SPECTRUM, Explanation
from solo_dimreg.reports.comparison import TEMPLATES, Section, curves_sections
from solo_dimreg.reports.provenance import what_ran
from solo_dimreg.reports.run_files import NOT_COMPARED, RunRecord, read_configuration
from solo_dimreg.studies.answer import ACCURACIES, LABELS, MARGIN, SCORES, Answer, answer_of, short

COLOURS = {"better": plots.COLOURS[2], "worse": plots.COLOURS[5]}
MARKERS = {"better": "o", "worse": "X"}
# Kendall's tau between a score that needs no labels and the linear accuracy of the 38 rows of our claims, and
# the claim in docs/data/claims.json that says so.
TAUS = {
    "rankme": (0.47, "rankme-orders"),
    "effective_rank": (0.45, "effective-rank-orders"),
    "lidar": (0.30, "lidar-orders"),
    "alpha_req": (0.10, "alpha-req-orders"),
    "lid": (0.04, "lid-orders"),
}


def write_answer(results: Mapping[str, Any], out: Path) -> Answer:
    """Write ``compare.html``, ``compare.md`` with its PNG plots, and ``compare.json``."""
    answer = answer_of(results)
    sections = [*_sections(answer, results)]
    for card in (card for section in sections for card in section.cards):
        plots.save_png(card.figure, out / f"{card.name}.png")
    title = "Does a remedy help?" if "conclusion" in results else f"{results['study']}: is it better?"
    for kind in ("md", "html"):
        page = render(TEMPLATES / f"report.{kind}.j2", title=title, sections=sections)
        write_text(out / f"compare.{kind}", page)
    said = {"sentence": results["conclusion"]} if "conclusion" in results else {}
    write_json(out / "compare.json", answer.as_dict() | said)
    return answer


def _sections(answer: Answer, results: Mapping[str, Any]) -> Iterator[Section]:
    titles = {row.name: row.title for row in answer.rows}
    runs = [run | {"row": titles[name]} for name in titles for run in results["runs"] if run["row"] == name]
    words = {row.word for row in answer.others}
    heading = "No row is shown to help" if answer.primary else "Unknown"
    heading = "Unfinished" if "unfinished" in words else heading
    heading = f"Yes: {titles[answer.take]}" if answer.take else heading
    kind = "good" if answer.take else "warning"
    if "conclusion" in results:  # of a search for a remedy
        heading = "A remedy that helps" if results["helps"] else "No remedy is shown to help"
        kind = "good" if results["helps"] else "warning"
    yield Section(heading, results.get("conclusion") or answer.sentence(), kind=kind)
    yield from results.get("sections", ())
    if answer.primary is None:
        yield Section("How well scores without labels order runs", label_free(answer))
    text = "A cell has the mean over the seeds and its interval; 'What the words mean', below, says how."
    yield Section("The rows", text, *answer.table(), _forests(answer))
    if len(answer.measures) > len(answer.compared):
        text = f"The means of the paired differences to {answer.base}, with their intervals."
        yield Section("All differences", text, *answer.differences_table())
    yield _to_take(answer, results)
    yield Section("What the words mean", "", ["word", "meaning"], list(answer.rules().items()))
    yield from _diagnoses(runs)
    spectra = {run["row"]: run["spectrum"] for run in reversed(runs) if run.get("spectrum")}
    if spectra:
        names = list(titles.values())
        drawn = plots.draw_spectra({name: spectra[name] for name in names if name in spectra}, names)
        yield Section("Spectra", "These are of one seed a row.", cards=[Card(drawn, SPECTRUM, "spectra")])
    if any(run.get("curves") for run in runs):
        yield from curves_sections(
            [RunRecord(run["row"], dict(run), curves=run.get("curves", {}), seed=run["seed"]) for run in runs]
        )
    yield Section("What ran", "", ["record", "value"], what_ran(runs))


def _forests(answer: Answer) -> list[Card]:
    cards = []
    for key in answer.measures:
        if any(math.isfinite(row.differences[key].mean) for row in answer.others):
            text = f"The mean paired difference to {answer.base} and its interval."
            if key == answer.primary:
                text += f" A row in the grey band is within {MARGIN:g} point."
            label = f"difference in {LABELS[key]}"
            cards.append(Card(draw_differences(answer, key), Explanation(label, text), f"difference-{key}"))
    return cards


@rc_context(plots.STYLE)
def draw_differences(answer: Answer, key: str) -> Figure:
    """Return a figure of the paired differences to the baseline in one measure, with their intervals."""
    rows = answer.others
    figure = Figure(figsize=(plots.WIDTH, 1.1 + 0.36 * len(rows)))
    figure.set_label(f"Differences to {answer.base} in {short(key)}")
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        found, word = row.differences[key], row.word if key == answer.primary else ""
        ends = [found.mean - found.low, found.high - found.mean]
        axes.errorbar(
            found.mean, place,
            xerr=[[end] for end in ends] if all(map(math.isfinite, ends)) else None,
            fmt=MARKERS.get(word, "s"), color=COLOURS.get(word, plots.INK), capsize=4,
        )  # fmt: skip
    axes.axvline(0, color=plots.COLOURS[7], linewidth=1)
    if key in ACCURACIES:
        axes.axvspan(-MARGIN, MARGIN, color=plots.COLOURS[7], alpha=0.15, linewidth=0)
    axes.set_yticks(range(len(rows)), [plots.shorten(row.title, 24) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(f"difference in {short(key)}")
    return figure


def _diagnoses(runs: Sequence[Mapping[str, Any]]) -> Iterator[Section]:
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in runs:
        if run.get("verdict"):
            found.setdefault((run["row"], run["verdict"]["kind"]), []).append(run)
    rows = [
        [name, kind, ", ".join(str(run["seed"]) for run in those), those[0]["verdict"].get("reason", "")]
        for (name, kind), those in found.items()
    ]
    if rows:
        header = ["row", "verdict", "seeds", "reason (of the first seed)"]
        yield Section("Has it collapsed?", "The verdicts of the diagnosis on the features.", header, rows)


def _to_take(answer: Answer, results: Mapping[str, Any]) -> Section:
    heading = "The config to take"
    if answer.primary is None:
        return Section(heading, "Without accuracies, no row can be recommended as better.")
    if answer.take is None:
        return Section(heading, f"None is shown to help, so keep {answer.base}.")
    first = {run["row"]: run for run in reversed(results["runs"])}
    text = (
        f"{answer.better[0].title} is shown to be better. "
        f"Put these lines into the config of the baseline ({answer.base})."
    )
    code = changes_yaml(results["rows"][answer.take], first[answer.take], first[answer.baseline])
    return Section(heading, text, code=code)


def changes_yaml(row: Mapping[str, Any], run: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    """Return what a row changes in the config of the baseline, as YAML.

    Args:
        row: The ``config`` of the row, by its name, and its ``overrides``.
        run, base: A run of the row and one of the baseline. If the settings of their checkpoints are not
            there, the changes are the overrides.
    """
    overrides = [*(row.get("overrides") or ())]
    removed = []
    try:
        one, other = (read_configuration(Path(each["checkpoint"]).parent) for each in (run, base))
        changes: Any = _differing(one, other)
        removed = [key for key in other if key not in (*one, *NOT_COMPARED)]
    except (ConfigError, KeyError):
        changes = OmegaConf.create()
        for override in read_overrides(overrides):
            if override.is_delete():
                removed.append(override.key_or_group)
            else:
                OmegaConf.update(changes, override.key_or_group, override.value(), force_add=True)
    lines = [" ".join([f"# The row: {row['config']}", *overrides]), *(f"# Remove: {key}" for key in removed)]
    return "\n".join([*lines, OmegaConf.to_yaml(OmegaConf.create(changes)) if changes else ""])


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _differing(value, other[key])
        if isinstance(value, dict) and isinstance(other.get(key), dict)
        else value
        for key, value in one.items()
        if key not in NOT_COMPARED and (key not in other or value != other[key])
    }


def label_free(answer: Answer) -> str:
    """Return what our claims say of how well the measured scores order runs without labels."""
    known = [key for key in SCORES if key in answer.measures and key in TAUS]
    taus = ", ".join(f"{short(key)} {TAUS[key][0]:.2f} (claim {TAUS[key][1]})" for key in known)
    return (
        "The dimensionality and these scores are no accuracy. Over the 38 rows of our claims (seeds 5 to 12, "
        "on the patches), Kendall's tau between a score and the linear accuracy, which is 1 for the same "
        f"order and 0 for no relation, is: {taus}. "
        "Among 12 settings of SimCLR and of BYOL, over 20 epochs, no order was shown by RankMe, LiDAR, "
        "alpha-ReQ or LID (claims rankme-within, lidar-within, alpha-req-within and lid-within of the study "
        "evidence). Two rows that differ in such a score may well be in the other order by accuracy."
    )
