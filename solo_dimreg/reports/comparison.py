"""The report that compares runs: a self-contained HTML page, and a Markdown page with PNG plots."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solo_dimreg import plots
from solo_dimreg.diagnosis.templating import Card, render
from solo_dimreg.errors import warn
from solo_dimreg.files import write_text
from solo_dimreg.metrics.explanations import ACCURACY, SPECTRUM, explain
from solo_dimreg.reports.provenance import evaluations_table, what_ran
from solo_dimreg.reports.run_files import ABSENT, LOGGED, RunRecord
from solo_dimreg.reports.runs import by_method, differing_settings, read_runs
from solo_dimreg.reports.summary import mean_and_deviation, mean_as_text, results_table, summarize

TEMPLATES = Path(__file__).parent / "templates"
EVALUATIONS = {"linear": "linear_acc1", "k-NN": "knn_acc1"}
# The metrics that the page opens with. All other recorded metrics follow, folded.
MAIN_CURVES = (
    *("matrix_entropy", "mutual_information", "effective_rank", "lid", "adadim_alpha", "alpha_req"),
    *("off_diagonal_correlation", "z_matrix_entropy", "z_effective_rank", "z_lid"),
    *("z_off_diagonal_correlation", "val_acc1"),
)
# The words before the epoch of a value that is not of the last epoch.
EARLIER = "after epoch"
# Columns of dimensionality.csv that are no metrics.
COUNTS = ("samples", "dimensions", "z_samples", "z_dimensions")
LEGEND = (
    "Linear and k-NN accuracy are solo-learn's, on the validation images. The effective rank (of the centred "
    "features) and the LID (geometric mean, k = 32) are measured on the features of the training images, "
    "without augmentation. The correlation of the embeddings is the mean absolute off-diagonal one. "
    "Pretraining is the wall time, known for runs that were not interrupted. ± is the standard deviation "
    "over the seeds."
)


@dataclass(frozen=True)
class Section:
    """A section of the report, which both pages show.

    The ``kind`` of a text that is shown as a banner is a key of ``SIGNS``; ``code`` is YAML.
    """

    heading: str
    text: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    cards: Sequence[Card] = ()
    folded: bool = False
    kind: str = ""
    code: str = ""


def write_report(folder: Path, out: Path) -> Path:
    """Write ``report.html``, and ``report.md`` with its PNG plots; return the path of the HTML page.

    For the folder and the errors see :func:`solo_dimreg.reports.runs.read_runs`.
    """
    results, records = read_runs(folder)
    unread = results["unread"]
    for line in unread:
        warn(f"not in the report: {line}.")
    title = f"Comparison: {results.get('benchmark', folder.resolve().name)}"
    sections = [
        *_accuracies(records),
        *_evaluations(records),
        *curves_sections(records),
        _configurations(records),
        _provenance(results, records),
    ]
    if unread:
        sections.append(Section("Not read", " ".join(f"{line}." for line in unread)))
    for card in (card for section in sections for card in section.cards):
        plots.save_png(card.figure, out / f"{card.name}.png")
    for kind in ("md", "html"):
        page = render(TEMPLATES / f"report.{kind}.j2", title=title, sections=sections)
        write_text(out / f"report.{kind}", page)
    return out / "report.html"


def _accuracies(records: Sequence[RunRecord]) -> list[Section]:
    heading = "Accuracy and dimensionality"
    results = [record.result for record in records if "method" in record.result]
    if not results and any(record.evaluations for record in records):
        return []
    if not results:
        nothing = (
            "Accuracies are not here: 'solo-dimreg linear RUN' and 'solo-dimreg knn RUN' write them beside "
            "the checkpoint, and 'solo-dimreg benchmark' measures them for every run."
        )
        return [Section(heading, nothing)]
    summary = summarize(results)
    names = [line["method"] for line in summary]
    accuracies = {
        label: [(math.nan if line[name] is None else line[name], line[f"{name}_std"]) for line in summary]
        for label, name in EVALUATIONS.items()
    }
    cards = [Card(plots.draw_accuracies(names, accuracies), ACCURACY, "accuracy")]
    spectra = {result["method"]: result["spectrum"] for result in reversed(results) if "spectrum" in result}
    if spectra:
        drawn = plots.draw_spectra({name: spectra[name] for name in names if name in spectra}, names)
        cards.append(Card(drawn, SPECTRUM, "spectra"))
    return [Section(heading, LEGEND, *results_table(summary), cards)]


def curves_sections(records: Sequence[RunRecord]) -> list[Section]:
    """Return the sections with the metrics of the runs over the epochs."""
    grouped = by_method(records)
    found = {name for record in records for name in record.curves} - set(COUNTS)
    heading = "Over the epochs"
    missing = "The dimensionality was not recorded: add 'monitor: {every_n_epochs: 1}' to the config. "
    if not found:
        return [Section(heading, missing)]
    main = [name for name in MAIN_CURVES if name in found]
    more = sorted(found - set(main))
    seeds = max(len(runs) for runs in grouped.values())
    text = "Thin lines are single seeds, and thick lines are their mean. " if seeds > 1 else ""
    if found <= set(LOGGED.values()):
        text = missing + text
    text += "The table has the values of the last epoch, and the plots have all epochs."
    header, rows = _last_values(grouped, main)
    if any(EARLIER in cell for row in rows for cell in row[1:]):
        text += " Where a run has no value of its last epoch, the table has its newest one and says so."
    sections = [Section(heading, text, header, rows, [_curve_card(name, grouped) for name in main])]
    if more:
        cards = [_curve_card(name, grouped) for name in more]
        sections.append(Section("Further metrics over the epochs", cards=cards, folded=True))
    return sections


def _last_values(
    grouped: Mapping[str, Sequence[RunRecord]], names: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    def cell(runs: Sequence[RunRecord], name: str) -> str:
        having = [run for run in runs if name in run.curves]
        last = mean_and_deviation([run.curves[name][max(run.curves[name])] for run in having])
        ends = dict.fromkeys(end for run in having if (end := _earlier(run, name)))
        earlier = f" ({EARLIER} {', '.join(ends)})" if ends else ""
        return mean_as_text(*last) + earlier

    rows = [[method, *(cell(runs, name) for name in names)] for method, runs in grouped.items()]
    return ["method", *(explain(name).label for name in names)], rows


def _earlier(run: RunRecord, name: str) -> str:
    """Return "2 of 3" if the run's last value of a metric is from the second of three epochs, else ""."""
    recorded = run.result.get("epochs")
    epochs = max(max(curve) for curve in run.curves.values()) + 1
    epochs = max(epochs, recorded) if isinstance(recorded, int) else epochs
    last = max(run.curves[name]) + 1
    return f"{last} of {epochs}" if last < epochs else ""


def _curve_card(name: str, grouped: Mapping[str, Sequence[RunRecord]]) -> Card:
    curves = {
        method: [run.curves[name] for run in runs if name in run.curves] for method, runs in grouped.items()
    }
    explanation = explain(name)
    panel = {method: each for method, each in curves.items() if each}
    drawn = plots.draw_curves({explanation.label: panel}, list(grouped))
    return Card(drawn, explanation, "curve-" + re.sub(r"[^\w.-]+", "-", name))


def _configurations(records: Sequence[RunRecord]) -> Section:
    heading = "Differences of configuration"
    names = list(by_method(records))
    if len(names) < 2:
        return Section(heading, "There is only one configuration.")
    if not any(record.settings for record in records):
        return Section(heading, "The configurations (args.json of each run) are not here.")
    found = differing_settings(records)
    if not found:
        return Section(heading, "There are none.")
    text = f"The table has only the settings that differ; {ABSENT} means that a configuration has none."
    return Section(heading, text, ["setting", *names], [[key, *values] for key, values in found.items()])


def _evaluations(records: Sequence[RunRecord]) -> list[Section]:
    header, rows = evaluations_table(records)
    text = (
        "'solo-dimreg linear' and 'solo-dimreg knn' wrote these results beside the checkpoints: the top-1 "
        "accuracy on the validation images, after the given epochs of pretraining. The column 'images' has "
        "the numbers of training and validation images, and 'steps' the steps of the probe. ± is the "
        "standard deviation over the runs."
    )
    return [Section("Evaluations", text, header, rows)] if rows else []


def _provenance(results: Mapping[str, Any], records: Sequence[RunRecord]) -> Section:
    rows = what_ran([_run(record) for record in records])
    if isinstance(results.get("knn"), dict):
        rows.append(["k-NN", ", ".join(f"{name} {value}" for name, value in results["knn"].items())])
    return Section("What ran", "", ["record", "value"], rows)


def _run(record: RunRecord) -> dict[str, Any]:
    """Return the known facts of a run, from its record or else from its settings."""
    result, settings = record.result, record.settings
    known = {key: settings.get(f"data.{key}") for key in ("dataset", "train_path", "val_path")}
    recorded = {key: value for key, value in (result.get("data") or {}).items() if value is not None}
    epochs = result.get("epochs", settings.get("max_epochs"))
    return {**result, "seed": record.seed, "epochs": epochs, "data": {**known, **recorded}}
