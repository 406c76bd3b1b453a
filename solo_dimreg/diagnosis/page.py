"""Write the results of a diagnosis: ``diagnosis.html``, its plots as PNG files, and ``diagnosis.json``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch.nn.functional import adaptive_avg_pool2d

from solo_dimreg import plots
from solo_dimreg.diagnosis import atlas
from solo_dimreg.diagnosis.checkpoints import Course
from solo_dimreg.diagnosis.classes import collapsed_classes
from solo_dimreg.diagnosis.diagnose import Diagnosis
from solo_dimreg.diagnosis.differences import differences
from solo_dimreg.diagnosis.layer_profile import BACKBONE, HEADER, LayerProfile, short_names
from solo_dimreg.diagnosis.table import differences_table, summary_table
from solo_dimreg.diagnosis.templating import TEMPLATES, Card, data_address, render
from solo_dimreg.diagnosis.verdict import THRESHOLDS
from solo_dimreg.errors import warn
from solo_dimreg.files import aside, write_bytes, write_json, write_text
from solo_dimreg.metrics.explanations import SPECTRUM, Explanation, explanation_of
from solo_dimreg.metrics.intervals import with_interval
from solo_dimreg.metrics.registry import METRICS, VIEWS

KINDS = {
    "healthy": "good",
    "partly collapsed": "warning",
    "collapsed": "bad",
    "cannot tell": "unknown",
    "no verdict": "reference",
}
CUMULATIVE = Explanation(
    "cumulative variance",
    "The part of the variance that the leading directions hold. If a curve reaches 100 % early, the rest of "
    "the dimensions are empty.",
    SPECTRUM.source,
    SPECTRUM.address,
)
LID_BY_K = Explanation(
    "LID over the number of neighbours",
    "The LID in ever wider neighbourhoods, with its 95 % interval. Where the curve is steep, the dimension "
    "around a point depends on the scale, and no single number of neighbours tells it. The thin lines "
    "are networks trained here; the table of the known networks has their numbers.",
    "Denti et al., Scientific Reports 2022",
    "https://arxiv.org/abs/2104.13832",
)
ATLAS = Explanation(
    "known networks",
    "The effective rank over the attainable one, among networks that are known; sources stand below.",
)
UMAP = Explanation(
    "UMAP",
    "solo-learn's UMAP plot of the features, coloured by class.",
    "McInnes et al., 2018",
    "https://arxiv.org/abs/1802.03426",
)
LAYERS = Explanation(
    "Layers",
    "The metrics of what comes out of each block, pooled over its positions. Behind the vertical line stands "
    "what follows the backbone.",
)
TRAINING = Explanation("Training", "The metrics of the checkpoints over the epochs, counted from 0.")
INTERVALS = (
    "± is half of the 95 % interval over images: where 95 % of other samples of as many images would fall. "
    "Skew intervals and those of counts have their ends in brackets; a number has none where all replicates "
    "agree, or explode. It does not contain what ranks and dimensions lose in small samples."
)
# The explanations for the page, which hold for the features and the embeddings.
EXPLANATIONS = {
    name: explanation_of(record)
    for name, record in METRICS.items()
    if record.in_diagnosis and record.inputs != VIEWS and record.explanation
}
# The number of cells along each side of a heat map; more axes are averaged in blocks.
CELLS = 128
LINES = 8  # at most this many checkpoints in the figure of the layers
# The names of the files that a diagnosis writes.
OWN_FILES = re.compile(
    r"diagnosis\.(html|json)|"
    r"(spectra|cumulative_variance|lid|lid_by_k|atlas|training|(correlation|umap|layers)-\d+)\.png"
)
# The largest number of classes that the page shows, and the decimals of their numbers.
CLASSES, CELLS_OF_CLASS = 50, {"lid": 2, "effective_rank": 1, "within_variance": 3}


@dataclass
class Where:
    """The cards, and the tables with their header, rows, label and sentences."""

    cards: list[Card] = field(default_factory=list)
    tables: list[tuple[Sequence[str], list[list[str]], str, list[str]]] = field(default_factory=list)


def write_diagnosis(diagnoses: Sequence[Diagnosis], out: Path, course: Course | None = None) -> Path:
    """Write the page, the plots and the metrics of inputs, side by side; return the path of the HTML page.

    The files of an earlier diagnosis in the folder move to ``<out>.bak``, and a warning says so. ``course``
    has the checkpoints of a run, of which the diagnosis is the last.
    """
    cards = _cards(diagnoses)
    where = _where_it_falls(diagnoses, course)
    _move_earlier(out)
    for card in [*cards, *where.cards]:
        plots.save_png(card.figure, out / f"{card.name}.png")
    for number, each in enumerate(diagnoses, 1):
        if each.umap:
            write_bytes(out / f"umap-{number}.png", each.umap)
    found = {
        "thresholds": THRESHOLDS,
        "inputs": [each.as_dict() for each in diagnoses],
        "differences": [each.as_dict() for each in differences(diagnoses)],
        **({} if course is None else {"training": course.as_dict()}),
    }
    write_json(out / "diagnosis.json", found)
    write_text(out / "diagnosis.html", _render("diagnosis.html.j2", diagnoses, cards, where))
    return out / "diagnosis.html"


def _move_earlier(out: Path) -> None:
    """Move the files of an earlier diagnosis, and no others, to another folder."""
    earlier = [path for path in out.glob("*") if path.is_file() and OWN_FILES.fullmatch(path.name)]
    if not any(path.name in ("diagnosis.html", "diagnosis.json") for path in earlier):
        return
    target = aside(out.resolve())
    target.mkdir()
    for path in earlier:
        path.rename(target / path.name)
    warn(f"{out}: the earlier diagnosis there was moved to {target}.")


def fragment(diagnosis: Diagnosis) -> str:
    """Return verdict, metrics, plots and classes of one input, as a part of another page or a notebook."""
    return _render("fragment.html.j2", [diagnosis], _cards([diagnosis]), _where_it_falls([diagnosis]))


def _render(template: str, diagnoses: Sequence[Diagnosis], cards: Sequence[Card], where: Where) -> str:
    umaps = {each.source.name: data_address(each.umap, "png") for each in diagnoses if each.umap}
    return render(
        TEMPLATES / template,
        title=f"Diagnosis of {', '.join(each.source.name for each in diagnoses)}",
        diagnoses=diagnoses,
        metrics=summary_table(diagnoses),
        cards=cards,
        where=where,
        differences=[(each, *differences_table(each)) for each in differences(diagnoses)],
        networks=atlas.table(),
        sources=atlas.sources(),
        umaps=[(name, replace(UMAP, label=f"{name}: UMAP"), address) for name, address in umaps.items()],
        classes=[
            (each.source.name, len(each.classes), _classes(each), collapsed_classes(each.classes))
            for each in diagnoses
            if each.classes
        ],
        explanations=EXPLANATIONS.values(),
        thresholds=list(THRESHOLDS.items()),
        kinds=KINDS,
        INTERVALS=INTERVALS,
    )


def _cards(diagnoses: Sequence[Diagnosis]) -> list[Card]:
    spaces = {
        f"{each.source.name}, {name}" if len(diagnoses) > 1 else name: space
        for each in diagnoses
        for name, space in each.spaces.items()
    }
    # A spectrum is 0 beyond the attainable rank, whatever the features are.
    spectra = {name: space.spectrum[: space.attainable].tolist() for name, space in spaces.items()}
    lids = {name: space.lids.tolist() for name, space in spaces.items()}
    curves = {
        name: {k: (lid, *(space.interval("lid_by_k", k) or (lid, lid))) for k, lid in space.lid_by_k.items()}
        for name, space in spaces.items()
    }
    cards = [
        Card(plots.draw_spectra(spectra), SPECTRUM, "spectra"),
        Card(plots.draw_cumulative_variance(spectra), CUMULATIVE, "cumulative_variance"),
        Card(plots.draw_lids(lids), EXPLANATIONS["lid"], "lid"),
        Card(plots.draw_lid_by_k(curves, atlas.lid_curves()), LID_BY_K, "lid_by_k"),
        Card(atlas.draw(diagnoses), ATLAS, "atlas"),
    ]
    for number, (name, space) in enumerate(spaces.items(), 1):
        size = min(len(space.correlation), CELLS)
        blocks = adaptive_avg_pool2d(space.correlation.abs()[None, None], size)[0, 0]
        drawn = plots.draw_correlation(blocks.tolist(), name)
        cards.append(Card(drawn, EXPLANATIONS["off_diagonal_correlation"], f"correlation-{number}"))
    return cards


def _classes(diagnosis: Diagnosis) -> list[list[str]]:
    lowest = sorted(diagnosis.classes, key=lambda line: line["lid"] or math.inf)[:CLASSES]
    return [
        [
            line["class"],
            str(line["samples"]),
            *(with_interval(line[name], line["intervals"][name], n) for name, n in CELLS_OF_CLASS.items()),
            "collapsed" if line["collapsed"] else "",
        ]
        for line in lowest
    ]


def _where_it_falls(diagnoses: Sequence[Diagnosis], course: Course | None = None) -> Where:
    """Return the figures and tables of the checkpoints and layers; empty if none were asked for.

    Inputs with the same layers, and checkpoints, share a figure.
    """
    found = Where()
    if course is not None:
        drawn = plots.draw_curves(course.curves, ["features", "embeddings"])
        found.cards.append(Card(drawn, TRAINING, "training"))
        found.tables.append((*course.table, "Over the training", [course.sentence]))
    profiles = {each.source.name: each.layers for each in diagnoses if each.layers is not None}
    for name, profile in profiles.items():
        header, said = HEADER[: len(profile.rows[0])], [profile.sentence, profile.dense_sentence]
        found.tables.append((header, profile.rows, f"Layers of {name}", said))
    if course is not None:
        named = [(f"epoch {each.epoch}", each.layers) for each in course.checkpoints if each.layers]
        profiles = dict(named[i] for i in _spread(len(named)))
    groups: dict[tuple[str, ...], dict[str, LayerProfile]] = {}
    for name, profile in profiles.items():
        groups.setdefault(tuple(layer.name for layer in profile.layers), {})[name] = profile
    for i, group in enumerate(groups.values(), 1):
        found.cards.append(Card(_figure(group), LAYERS, f"layers-{i}"))
    return found


def _spread(count: int) -> list[int]:
    """Return at most ``LINES`` of the indices below ``count``, evenly spaced, with the first and the last."""
    return sorted({round(i * (count - 1) / (LINES - 1)) for i in range(LINES)}) if count else []


def _figure(profiles: Mapping[str, LayerProfile]) -> plots.Figure:
    layers = next(iter(profiles.values())).layers
    panels = {
        "effective rank / attainable": {
            name: [layer.share for layer in each.layers] for name, each in profiles.items()
        }
    }
    for metric in ("lid", "mean_share", "off_diagonal_correlation"):
        values = {name: [getattr(layer, metric) for layer in each.layers] for name, each in profiles.items()}
        panels[METRICS[metric].label] = {
            name: [math.nan if value is None else value for value in line] for name, line in values.items()
        }
    own = sum(layer.part == BACKBONE for layer in layers)
    names = [short_names(layers)[layer.name] for layer in layers]
    return plots.draw_layers(names, panels, own if own < len(layers) else None)
