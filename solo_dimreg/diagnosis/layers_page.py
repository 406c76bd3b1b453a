"""The parts of a page that show where, and when, dimensions are lost: by layer and by checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from solo_dimreg import plots
from solo_dimreg.diagnosis.checkpoints import Course
from solo_dimreg.diagnosis.diagnose import Diagnosis
from solo_dimreg.diagnosis.layer_profile import BACKBONE, HEADER, LayerProfile, short_names
from solo_dimreg.diagnosis.templating import Card
from solo_dimreg.metrics.explanations import Explanation
from solo_dimreg.metrics.registry import METRICS

LINES = 8  # at most this many lines in a figure
LAYERS = Explanation(
    "Layers",
    "The metrics of what comes out of each block, pooled over its positions. Behind the vertical line stands "
    "what follows the backbone.",
)
TRAINING = Explanation("Training", "The metrics of the checkpoints over the epochs, counted from 0.")


@dataclass
class Where:
    """The cards, and the tables with their header, rows, label and sentences."""

    cards: list[Card] = field(default_factory=list)
    tables: list[tuple[Sequence[str], list[list[str]], str, list[str]]] = field(default_factory=list)


def where_it_falls(diagnoses: Sequence[Diagnosis], course: Course | None = None) -> Where:
    """Return the figures and tables of the checkpoints and layers; empty if none were asked for.

    Inputs with the same layers, and checkpoints, share a figure.
    """
    found, figures = Where(), []
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
    figures = [_figure(group) for group in groups.values()]
    found.cards += [Card(figure, LAYERS, f"layers-{i}") for i, figure in enumerate(figures, 1)]
    return found


def _spread(count: int) -> list[int]:
    """Return at most ``LINES`` of the indices below ``count``, evenly spaced, with the first and the last."""
    return sorted({round(i * (count - 1) / max(LINES - 1, 1)) for i in range(LINES)}) if count else []


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
