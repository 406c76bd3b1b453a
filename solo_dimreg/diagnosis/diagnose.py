"""Diagnose features: find out whether they have collapsed globally, locally or completely."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from solo_dimreg.diagnosis.classes import mark_collapsed
from solo_dimreg.diagnosis.layer_profile import LayerProfile
from solo_dimreg.diagnosis.neighbourhoods import Batch, SearchAmongAll, digests_of, first_of
from solo_dimreg.diagnosis.sources.opening import Source
from solo_dimreg.diagnosis.verdict import MAX_DIMENSIONS, Verdict, judge, most_rows
from solo_dimreg.errors import ConfigError
from solo_dimreg.functional.spectrum import entropy
from solo_dimreg.metrics.intervals import Interval, interval, of_influence, rank_deviations
from solo_dimreg.metrics.moments import Moments
from solo_dimreg.metrics.neighbourhoods import (
    LEAST_IN_GROUP,
    LID_NEIGHBOURS,
    Neighbourhoods,
    neighbours_within,
)
from solo_dimreg.metrics.numbers import (
    Space,
    describe_space,
    information_intervals,
    mutual_information,
    with_intervals,
)
from solo_dimreg.metrics.registry import METRICS, POSITIVE
from solo_dimreg.metrics.streaming import FeatureStatistics

MIN_SAMPLES = 3
MAX_VALUE = 1e100  # the largest value whose square does not overflow
# The caution names a mean with more of the squared length than this. ReLU features of a healthy network have
# less.
SHARED = 0.95
# Points lie at two scales if, without the outermost 5 %, some have their first and their 32nd neighbour this
# many times farther than the others. In groups of uneven size, only one of the two is.
SCALES, OUTERMOST = 3, 0.05
# A point has near copies if one of its first 8 neighbours is this many times nearer than the next. In one
# dimension, 11 % of the points have, and in two 1 %.
NEAR, COPIED = 10, 0.25
# The metrics that decide; what is printed of intervals and differences is theirs.
DECIDING = ("signal_rank", "effective_rank", "lid")


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """The diagnosis of one input.

    Attributes:
        features, embeddings: The metrics of each; the embeddings may be None.
        information, information_intervals: I(R;Z) and its 95 % intervals by name, empty without embeddings.
        classes: For each class of the sample: name, number of points, LID, effective rank, the variance
            within over that of all samples, their intervals, and whether its neighbourhoods have collapsed.
        umap: solo-learn's UMAP plot, a PNG; empty if there is none.
        layers: The profile of the layers, if it was asked for.
    """

    source: Source
    features: Space
    embeddings: Space | None
    information: dict[str, float]
    information_intervals: dict[str, Interval | None]
    classes: list[dict[str, Any]]
    umap: bytes = b""
    layers: LayerProfile | None = None

    @property
    def verdict(self) -> Verdict:
        """Return the verdict on the features."""
        return self.verdict_on(self.features)

    def verdict_on(self, space: Space) -> Verdict:
        """Return the verdict on one of the spaces."""
        return judge(space, self.source.of)

    @property
    def caution(self) -> str:
        """Return why the metrics may mislead; empty if nothing speaks against them."""
        said: dict[str, None] = {}  # what holds for both spaces is said once
        for name, space in self.spaces.items():
            # Images that are there more than once are so in both spaces.
            noun = "samples" if space.duplicates == self.features.duplicates else name
            said |= dict.fromkeys(_cautions(space, name, noun))
        return " ".join(said)

    @property
    def spaces(self) -> dict[str, Space]:
        """Return the metrics of the features and, if any, of the embeddings, by name."""
        both = {"features": self.features, "embeddings": self.embeddings}
        return {name: space for name, space in both.items() if space is not None}

    @property
    def intervals(self) -> str:
        """Return the 95 % intervals of the metrics of the features that decide, in a sentence."""
        parts = []
        for name in DECIDING:
            if (found := self.features.interval(name)) is not None:
                low, high = (f"{end:.{METRICS[name].decimals}f}" for end in found)
                same = f"{low} in all replicates" if found[0] == found[1] else f"about {low}"
                ends = same if low == high else f"{low} to {high}"
                parts.append(f"{METRICS[name].label} {ends}")
        return f"95 % intervals over images: {', '.join(parts)}." if parts else ""

    def as_dict(self) -> dict[str, Any]:
        """Return all metrics, the spectra, and the quantiles of the LID, for JSON."""
        return {
            "name": self.source.name,
            "description": self.source.description,
            "verdict": self.verdict.as_dict(),
            "caution": self.caution,
            **{name: _space_dict(space, self.verdict_on(space)) for name, space in self.spaces.items()},
            **self.information,
            "intervals": self.information_intervals,
            "classes": self.classes,
            **({} if self.layers is None else {"layers": self.layers.as_dict()}),
        }


def diagnose(source: Source, with_umap: bool = False, intervals: bool = True) -> Diagnosis:
    """Read the features of a source batch by batch, and return their diagnosis.

    With more than 10,000 samples, the neighbours of 1,000 samples are sought among all of them. If some
    samples are equal, the source is read a second time, and the neighbours are sought among the distinct
    ones.

    Args:
        with_umap: Also let solo-learn draw its UMAP plot, if the source has a model and images.
        intervals: Also compute how far the metrics move with the images, which takes most of the time.

    Raises:
        ConfigError: some features are not finite, or there are too few samples.
    """
    if source.count < MIN_SAMPLES:
        raise ConfigError(f"{source.name}: {source.count} samples are too few; give at least {MIN_SAMPLES}.")
    statistics = FeatureStatistics()
    # The bar appears if the diagnosis takes more than two seconds.
    with tqdm(total=source.count, desc=source.name, unit="sample", unit_scale=True, delay=2) as bar:
        near = _read(source, statistics, bar)
        bar.set_description(f"{source.name}: metrics", refresh=False)
        sample, moments = statistics.sample, statistics.embeddings
        measured = with_intervals if intervals else describe_space
        space = measured(statistics.features, sample["features"], near["features"])
        embedded, information, around = None, {}, {}
        if moments is not None:
            embedded = measured(moments, sample["embeddings"], near["embeddings"])
            information = mutual_information(sample["features"], sample["embeddings"])
            if intervals:
                around = information_intervals(information, sample["features"], sample["embeddings"])
    points = near["features"].labels
    classes = _classes(sample["features"], sample.get("labels"), space.lids, points, source.classes)
    umap = _umap(source.umap) if with_umap and source.umap else b""
    return Diagnosis(source, space, embedded, information, around, classes, umap)


def _read(source: Source, statistics: FeatureStatistics, bar: Any) -> dict[str, Neighbourhoods]:
    """Read all samples into the statistics; return the neighbours of the features and the embeddings."""
    searches: dict[str, SearchAmongAll] = {}
    digests: dict[str, list[bytes]] = {"features": [], "embeddings": []}
    for features, embeddings, labels in _batches(source):
        found = _by_kind(features, embeddings)
        for name, rows in found.items():
            _check_rows(source, name, rows, statistics.count)
        if statistics.count == 0 and source.count > statistics.sample_size:
            searches = _searches(source, dict.fromkeys(found, torch.arange(source.count)), statistics)
        statistics.update(features, embeddings, labels)
        for name, search in searches.items():
            search.update(found[name])
            digests[name] += digests_of(found[name])
        bar.update(len(features))
    if not searches:
        sample = statistics.sample
        return {name: neighbours_within(sample[name], sample.get("labels")) for name in found}
    first = {name: first_of(digests[name]) for name in searches}
    if any(len(indices) < source.count for indices in first.values()):
        searches = _searches(source, first, statistics)
        for features, embeddings, _ in _batches(source):
            for name, rows in _by_kind(features, embeddings).items():
                searches[name].update(rows)
    return {name: search.found() for name, search in searches.items()}


def _by_kind(features: Tensor, embeddings: Tensor | None) -> dict[str, Tensor]:
    return {"features": features} | ({} if embeddings is None else {"embeddings": embeddings})


def _searches(
    source: Source, first: dict[str, Tensor], statistics: FeatureStatistics
) -> dict[str, SearchAmongAll]:
    read, limits = partial(_batches, source), (source.count, statistics.sample_size)
    return {name: SearchAmongAll(read, place, first[name], *limits) for place, name in enumerate(first)}


def _batches(source: Source, indices: Sequence[int] | None = None) -> Iterator[Batch]:
    """Yield the batches; turn an error, for example of an image that cannot be decoded, into one line."""
    try:
        yield from source.batches(indices)
    except Exception as error:
        # If a worker of the loader failed, the last line is the error itself.
        reason = (str(error).strip().splitlines() or [""])[-1]
        if isinstance(error, ConfigError) or "ConfigError: " in reason:
            raise ConfigError(reason.rpartition("ConfigError: ")[2]) from error
        raise ConfigError(f"{source.name}: {type(error).__name__}: {reason[:200].rstrip('.')}.") from error


def _check_rows(source: Source, name: str, rows: Tensor, before: int) -> None:
    width = rows.shape[1]
    # With fewer samples than dimensions, the smaller Gram matrix is used.
    if source.count > most_rows(width):
        raise ConfigError(
            f"{source.name}: {name} of {width} dimensions are too wide for a covariance matrix of "
            f"{source.count} samples; give at most {MAX_DIMENSIONS} dimensions (for pixels, a smaller "
            f"--size), or {most_rows(width)} samples."
        )
    wrong = ~(rows.isfinite() & (rows.abs() <= MAX_VALUE)).all(dim=1)
    if wrong.any():
        raise ConfigError(
            f"{source.name}: {name} are not finite (NaN, infinite or above {MAX_VALUE:g}), first in row "
            f"{before + int(wrong.nonzero()[0])}; fix or remove such rows."
        )


def _classes(
    features: Tensor, labels: Tensor | None, lids: Tensor, points: Tensor | None, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return a row for each class, none without several labels; ``points`` are the labels of the LIDs."""
    if labels is None or points is None or len(values := labels.unique()) < 2:
        return []
    total = float(features.double().var(dim=0).sum()) or 1.0
    lines = []
    for value in values.tolist():
        members = labels == value
        own, logs = features[members].double(), lids[points == value].double().log()
        moments = Moments(len(own), own.mean(dim=0), torch.finfo(own.dtype).eps, rows=own)
        rank_moves, variance_moves = rank_deviations(moments, own)
        lid = float(logs.mean().exp()) if len(logs) else None
        within = float(moments.variances.sum()) * (len(own) - 1) / len(own) / total
        found = {
            "lid": (lid, (lid or 0) * of_influence(logs) if len(logs) else logs),
            "effective_rank": (float(entropy(moments.spectrum.sqrt()).exp()), rank_moves),
            "within_variance": (within, within * variance_moves),
        }
        lines.append(
            {
                "class": str(names[value]) if 0 <= value < len(names) else str(value),
                "samples": int(members.sum()),
                **{name: number for name, (number, _) in found.items()},
                "intervals": {name: interval(*each, POSITIVE) for name, each in found.items()},
            }
        )
    return mark_collapsed(lines)


def _umap(plot: Callable[[Path], None]) -> bytes:
    """Return the plot as a PNG; if it fails, warn and return nothing, as no metric depends on it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "umap.png")
        try:
            plot(path)
        except Exception as error:
            warnings.warn(f"UMAP is left out ({type(error).__name__}: {error}).", stacklevel=2)
            return b""
        return path.read_bytes()


def _cautions(space: Space, name: str, noun: str) -> Iterator[str]:
    """Yield what to beware of in one space; ``noun`` is what its rows are called."""
    n, d = space.samples - space.duplicates, space.dimensions
    distinct = "distinct " if space.duplicates else ""
    if space.duplicates:
        yield (
            f"{space.duplicates} of {space.samples} {noun} equal an earlier one exactly; LID, TwoNN and the "
            f"spanning tree count equal {noun} once."
        )
    if n <= 2 * LID_NEIGHBOURS:
        yield f"Only {n} {distinct}{noun}: these are too few to measure a local dimension."
    elif n <= d:
        yield (
            f"Fewer {distinct}{noun} ({n}) than dimensions ({d}) of the {name}: the ranks are bounded by the "
            f"{noun}."
        )
    elif space.mean_share > SHARED:
        yield (
            f"The mean of all {name} holds {space.mean_share:.1%} of their squared length: they share one "
            "vector, which centred metrics, such as the effective rank, cannot see."
        )
    if n > 2 * LID_NEIGHBOURS:
        yield from _cautions_of_neighbours(space.distances.double().clamp_min(1e-300), name, noun)


def _cautions_of_neighbours(distances: Tensor, name: str, noun: str) -> Iterator[str]:
    """Yield what the distances of points to their neighbours, (Q, k), say against the LID."""
    steps = distances[:, 1:LEAST_IN_GROUP] / distances[:, : LEAST_IN_GROUP - 1]
    if (copied := float((steps > NEAR).any(dim=1).double().mean())) > COPIED:
        yield (
            f"{copied:.0%} of the {noun} have near copies, at least {NEAR} times nearer than the next "
            "neighbour: TwoNN and a LID of few neighbours measure the copies, and the intervals count each "
            "copy."
        )
    radii = distances[:, [0, -1]].sort(dim=0).values
    outer = round(OUTERMOST * len(radii))
    widest, place = (radii[outer + 1 : len(radii) - outer] / radii[outer : len(radii) - outer - 1]).max(dim=0)
    if (gap := float(widest.min())) > SCALES:
        part = (outer + 1 + int(place[1])) / len(radii)
        yield (
            f"The {name} lie at two scales: {part:.0%} of the {noun} have their neighbours {gap:.0f} "
            "times nearer than the others. The LID is a mean over both parts, and the spectrum is that of "
            "the wider one; diagnose each by itself."
        )


def _space_dict(space: Space, verdict: Verdict) -> dict[str, Any]:
    levels = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
    quantiles = torch.quantile(space.lids.double(), torch.tensor(levels, dtype=torch.float64))
    return {
        **space.numbers,
        "attainable_rank": space.attainable,
        "lid_by_k": space.lid_by_k,
        "intervals": {
            **{name: found for name in space.numbers if (found := space.interval(name)) is not None},
            "lid_by_k": {k: space.interval("lid_by_k", k) for k in space.lid_by_k},
        },
        "verdict": verdict.title,
        "lid_quantiles": dict(zip(map(str, levels), quantiles.tolist(), strict=True)),
        "spectrum": space.spectrum.tolist(),
    }
