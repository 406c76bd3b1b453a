"""The metrics of each layer of a network, and the sentence that says where the dimensions are lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby, pairwise, takewhile
from operator import itemgetter
from typing import Any

from solo_dimreg.metrics.intervals import Interval, with_interval

# A layer collapses if it has at most this part of the effective rank of the layer before, and of its share of
# the attainable one. Layers that keep at most half of both are said to lose.
COLLAPSE, LOSS = 0.25, 0.5
BACKBONE = "backbone"
DECIMALS = {"effective_rank": 1, "lid": 2, "mean_share": 3, "off_diagonal_correlation": 3}
DECIMALS |= {"within_rank": 1, "across_rank": 1}
HEADER = (
    *("layer", "dimensions", "effective rank", "of attainable (%)", "LID", "mean's share", "correlation"),
    *("rank within an image", "rank across images"),
)


@dataclass(frozen=True)
class Layer:
    """The metrics of one layer, from its outputs pooled over their positions.

    Attributes:
        name: The name of the module whose output it is.
        part: ``backbone``, or the name of the projector, predictor or other part behind it.
        dimensions, positions: D, and the number of cells of its map or of its tokens; 1 for rows.
        attainable: The largest rank of so many centred rows.
        effective_rank, lid, mean_share, off_diagonal_correlation: As in the glossary; None if undefined.
        within_rank: The mean effective rank of the positions of one image; None for rows.
        across_rank: The effective rank of one random position of each image; None for rows.
        intervals: The 95 % intervals over images of these metrics.
    """

    name: str
    part: str
    dimensions: int
    positions: int
    attainable: int
    effective_rank: float
    lid: float | None
    mean_share: float
    off_diagonal_correlation: float
    within_rank: float | None = None
    across_rank: float | None = None
    intervals: dict[str, Interval | None] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Return the effective rank over the attainable one."""
        return self.effective_rank / self.attainable

    def kept_of(self, before: Layer) -> float:
        """Return the part that is kept of an earlier layer's effective rank, or of its share if more."""
        return max(self.effective_rank / before.effective_rank, self.share / before.share)


@dataclass(frozen=True)
class LayerProfile:
    """The layers of a network in the order in which they ran.

    Attributes:
        samples: The number of images of the metrics.
        dense: The terms of the DSE of the last map or tokens and its ``layer``; empty without one.
    """

    layers: Sequence[Layer]
    samples: int
    dense: dict[str, Any]

    @property
    def sentence(self) -> str:
        """Return where the effective rank falls: in the backbone, and in each part behind it."""
        parts = [list(group) for _, group in groupby(self.layers, key=lambda layer: layer.part)]
        names = short_names(self.layers)
        said, last = [], None
        for layers in parts:
            if layers[0].part == BACKBONE:
                said.append(_of_backbone(layers, names))
            elif last is not None:
                said.append(_of_part([last, *layers], names))
            last = layers[-1]
        return " ".join(said)

    @property
    def rows(self) -> list[list[str]]:
        """Return the cells of the table of ``HEADER``, without columns for maps if there are none."""
        lines = [[layer.name, str(layer.dimensions), *_cells(layer)] for layer in self.layers]
        dense = any(layer.within_rank is not None for layer in self.layers)
        return lines if dense else [line[:-2] for line in lines]

    @property
    def brief_rows(self) -> list[list[str]]:
        """Return the same cells for a terminal, with the intervals of the effective rank and the LID only."""
        whole = {HEADER.index(name) for name in ("layer", "effective rank", "LID")}
        return [
            [cell if i in whole else cell.split()[0] for i, cell in enumerate(line)] for line in self.rows
        ]

    @property
    def dense_sentence(self) -> str:
        """Return the DSE and its terms in a sentence; empty without maps."""
        if not self.dense:
            return ""
        ends = self.dense["intervals"]
        shown = {name: with_interval(self.dense[name], around, 3) for name, around in ends.items()}
        return (
            "DSE {dse} at {layer}: distance between clusters of patches {distance}, minus their mean radius "
            "({radius_image} within an image, {radius_group} among eight), plus the filled part of the "
            "dimensions {dimension}; of {images} images at a time."
        ).format(**{**self.dense, **shown})

    def as_dict(self) -> dict[str, Any]:
        """Return all metrics for JSON."""
        return {
            "sentence": self.sentence,
            "samples": self.samples,
            "profile": [{**asdict(layer), "share": layer.share} for layer in self.layers],
            "dense": self.dense,
        }


def _cells(layer: Layer) -> list[str]:
    share = percent_of(layer.effective_rank, layer.intervals.get("effective_rank"), layer.attainable)
    rank, *cells = [
        with_interval(getattr(layer, name), layer.intervals.get(name), n) for name, n in DECIMALS.items()
    ]
    return [rank, share, *cells]


def percent_of(rank: float, ends: Interval | None, attainable: int) -> str:
    """Return an effective rank with its interval in percent of the attainable one."""
    part = 100 / attainable
    return with_interval(part * rank, ends and (part * ends[0], part * ends[1]), 1)


def short_names(layers: Sequence[Layer]) -> dict[str, str]:
    """Return the names of layers without the parts that all of the backbone's have in front."""
    own = [layer.name.split(".")[:-1] for layer in layers if layer.part == BACKBONE]
    levels = takewhile(lambda level: len({*level}) == 1, zip(*own, strict=False))
    front = "".join(f"{level[0]}." for level in levels)
    return {layer.name: layer.name.removeprefix(front) for layer in layers}


def _fall(layers: Sequence[Layer]) -> tuple[float, Layer, Layer]:
    """Return the deepest fall from a layer to the next: the part that is kept, and both layers."""
    return min(
        ((after.kept_of(before), before, after) for before, after in pairwise(layers)), key=itemgetter(0)
    )


def _of_backbone(layers: Sequence[Layer], names: dict[str, str]) -> str:
    first, last = layers[0], layers[-1]
    if len(layers) > 1:
        kept, before, after = _fall(layers)
        between = f"between {names[before.name]} and {names[after.name]}: {_ranks(before, after)}."
        if kept <= COLLAPSE:
            return f"The backbone collapses {between}"
        if kept <= LOSS:
            return f"The backbone loses most {between}"
        peak = max(layers, key=lambda layer: layer.effective_rank)
        if (left := last.kept_of(peak)) <= LOSS:
            # A narrow layer may fill its few dimensions; it loses if the wider ones after it fill no more.
            way = layers[layers.index(peak) :]
            before, after = min(
                pairwise(way), key=lambda pair: pair[1].effective_rank / pair[0].effective_rank
            )
            if after.effective_rank <= LOSS * before.effective_rank:
                verb = "collapses" if left <= COLLAPSE else "loses most"
                later = f", and {names[last.name]} has {last.effective_rank:.1f} of {last.attainable}"
                return (
                    f"The backbone {verb} between {names[before.name]} and {names[after.name]}: "
                    f"{_ranks(before, after)}{later if last is not after else ''}."
                )
            return (
                f"The backbone thins out from {names[peak.name]} to {names[last.name]}, at no layer by half: "
                f"{_ranks(peak, last)}."
            )
    return f"No layer of the backbone loses half of the effective rank: {_ranks(first, last)}."


def _of_part(layers: Sequence[Layer], names: dict[str, str]) -> str:
    """Return the sentence of a projector or another part; the first layer is the one before it."""
    first, last, part = layers[0], layers[-1], layers[-1].part
    kept, before, after = _fall(layers)
    if kept <= COLLAPSE:
        between = f"between {names[before.name]} and {names[after.name]}"
        return f"The {part} collapses {between}: {_ranks(before, after)}."
    whole = last.effective_rank / first.effective_rank
    verb = f"loses {1 - whole:.0%} of what is left" if whole < 1 else "keeps what is left"
    return f"The {part} {verb}: {_ranks(first, last)}."


def _ranks(before: Layer, after: Layer) -> str:
    return (
        f"effective rank {before.effective_rank:.1f} of {before.attainable} to {after.effective_rank:.1f} of "
        f"{after.attainable}"
    )
