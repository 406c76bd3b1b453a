"""Diagnoses representations: has one collapsed, globally, locally or completely?"""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from solo_dimreg.diagnostics.figures import (
    LID_NEIGHBOURS,
    MANY_NEIGHBOURS,
    THRESHOLDS,
    Space,
    Verdict,
    describe_space,
    judge,
    mutual_information,
    random_indices,
)
from solo_dimreg.diagnostics.sources.opening import Batch, Source
from solo_dimreg.diagnostics.streaming import FeatureStatistics, NeighbourSearch
from solo_dimreg.errors import ConfigError
from solo_dimreg.functional import effective_rank

MIN_SAMPLES = 3
# Their covariance matrix in float64 takes 2 GiB, and its decomposition some times that.
MAX_DIMENSIONS = 16_384
MAX_VALUE = 1e100  # its square still is a number
# A mean with more of the squared length than this is told of; ReLU features of a healthy network have less.
SHARED = 0.95
# The figures of the summary: what each is called, and its decimals.
TABLE = {
    "samples": ("samples", 0),
    "dimensions": ("dimensions", 0),
    "mean_share": ("mean's share of the squared length", 3),
    "effective_rank": ("effective rank", 1),
    "filled": ("directions filled", 0),
    "lid": (f"LID (k = {LID_NEIGHBOURS})", 2),
    "lid_mle": ("LID, maximum likelihood", 2),
    "lid_512": (f"LID (k = {MANY_NEIGHBOURS})", 2),
    "two_nn": ("dimension, TwoNN", 2),
    "mst_dimension": ("dimension, spanning tree", 2),
    "nesum": ("NESum", 1),
    "rankme": ("RankMe", 1),
    "rankme_share": ("RankMe over the width", 3),
    "alpha_req": ("alpha-ReQ", 2),
    "off_diagonal_correlation": ("off-diagonal correlation", 3),
    "matrix_entropy": ("entropy H of order 2, nats", 2),
    "matrix_entropy_1": ("entropy H of order 1, nats", 2),
    "uniformity": ("uniformity", 2),
    "self_clustering": ("self-clustering", 3),
}


@dataclass(frozen=True)
class Diagnosis:
    """What was found out about one input.

    Attributes:
        source: The input.
        features, embeddings: Their figures; the embeddings may be None.
        information: I(R;Z), empty without embeddings.
        classes: For each class of the sample: name, number of points, LID, effective rank, and the part of
            the variance that is within the class.
        umap: solo-learn's UMAP plot, a PNG; empty without.
    """

    source: Source
    features: Space
    embeddings: Space | None
    information: dict[str, float]
    classes: list[dict[str, Any]]
    umap: bytes = b""

    @property
    def verdict(self) -> Verdict:
        """The verdict on the features."""
        return judge(self.features)

    @property
    def caution(self) -> str:
        """What keeps the figures from saying much; empty if nothing does."""
        n, d = self.features.samples, self.features.dimensions
        if n <= 2 * LID_NEIGHBOURS:
            return f"Only {n} samples: too few to tell a local dimension."
        if n <= d:
            return f"Fewer samples ({n}) than dimensions ({d}): the ranks are bounded by the samples."
        if self.features.mean_share > SHARED:
            return (
                f"The mean of all features holds {self.features.mean_share:.1%} of their squared length: "
                "they share one vector, which centred figures, as the effective rank, cannot see."
            )
        return ""

    @property
    def spaces(self) -> dict[str, Space]:
        """Features and embeddings, by name."""
        both = {"features": self.features, "embeddings": self.embeddings}
        return {name: space for name, space in both.items() if space is not None}

    def as_dict(self) -> dict[str, Any]:
        """For JSON: all figures, the spectra, and the quantiles of the LID."""
        return {
            "name": self.source.name,
            "description": self.source.description,
            "verdict": self.verdict.as_dict(),
            "caution": self.caution,
            **{name: _space_dict(space) for name, space in self.spaces.items()},
            **self.information,
            "classes": self.classes,
        }


def diagnose(source: Source, with_umap: bool = False) -> Diagnosis:
    """Reads the features of a source batch by batch and describes them.

    Of more than 10,000 samples, the neighbours of 1,000 are sought among all of them.

    Args:
        source: From :func:`solo_dimreg.diagnostics.sources.opening.open_source`.
        with_umap: Also have solo-learn draw its UMAP plot, where the source has a model and images.

    Raises:
        ConfigError: features that are not finite, or too few of them.
    """
    if source.count < MIN_SAMPLES:
        raise ConfigError(f"{source.name}: {source.count} samples are too few; give at least {MIN_SAMPLES}.")
    statistics = FeatureStatistics()
    some = _Some(source) if source.count > statistics.sample_size else None
    # A bar for what takes longer than a moment.
    with tqdm(total=source.count, desc=source.name, unit="sample", unit_scale=True, delay=2) as bar:
        for features, embeddings, labels in _batches(source):
            for name, rows in (("features", features), ("embeddings", embeddings)):
                if rows is not None:
                    _check_rows(source.name, name, rows, statistics.count)
            statistics.update(features, embeddings, labels)
            if some is not None:
                some.update(features, embeddings)
            bar.update(len(features))
        bar.set_description(f"{source.name}: figures", refresh=False)
        sample = statistics.sample
        distances = some.distances if some else {}
        space = describe_space(statistics.features, sample.features, distances.get("features"))
        moments = statistics.embeddings
        embedded, information = None, {}
        if moments is not None and sample.embeddings is not None:
            embedded = describe_space(moments, sample.embeddings, distances.get("embeddings"))
            information = mutual_information(sample.features, sample.embeddings)
    points = sample.labels if some is None else some.labels
    classes = _classes(sample.features, sample.labels, space.lids, points, source.classes)
    umap = _umap(source.umap) if with_umap and source.umap else b""
    return Diagnosis(source, space, embedded, information, classes, umap)


class _Some:
    """A choice of samples whose neighbours are sought among all."""

    def __init__(self, source: Source) -> None:
        indices = random_indices(source.count)
        batches = list(_batches(source, indices.tolist()))
        features, embeddings, labels = (
            None if parts[0] is None else torch.cat(parts) for parts in zip(*batches, strict=True)
        )
        self.labels = labels
        queries = {"features": features, "embeddings": embeddings}
        self._searches = {
            name: NeighbourSearch(rows, indices, MANY_NEIGHBOURS)
            for name, rows in queries.items()
            if rows is not None
        }

    def update(self, features: Tensor, embeddings: Tensor | None) -> None:
        for name, rows in (("features", features), ("embeddings", embeddings)):
            if rows is not None:
                self._searches[name].update(rows)

    @property
    def distances(self) -> dict[str, Tensor]:
        return {name: search.distances for name, search in self._searches.items()}


def _batches(source: Source, indices: Sequence[int] | None = None) -> Iterator[Batch]:
    """The batches; an image that cannot be decoded, say, is an error of one line."""
    try:
        yield from source.batches(indices)
    except Exception as error:
        # Of an error in a worker of the loader, the last line is the error itself.
        reason = (str(error).strip().splitlines() or [""])[-1]
        if isinstance(error, ConfigError) or "ConfigError: " in reason:
            raise ConfigError(reason.rpartition("ConfigError: ")[2]) from error
        raise ConfigError(f"{source.name}: {type(error).__name__}: {reason[:200].rstrip('.')}.") from error


def _check_rows(source: str, name: str, rows: Tensor, before: int) -> None:
    if rows.shape[1] > MAX_DIMENSIONS:
        raise ConfigError(
            f"{source}: {name} of {rows.shape[1]} dimensions are too wide for a covariance matrix; give at "
            f"most {MAX_DIMENSIONS} (of images, a smaller --size)."
        )
    wrong = ~(rows.isfinite() & (rows.abs() <= MAX_VALUE)).all(dim=1)
    if wrong.any():
        raise ConfigError(
            f"{source}: {name} are not finite (NaN, infinite or above {MAX_VALUE:g}), first in row "
            f"{before + int(wrong.nonzero()[0])}; mend or remove such rows."
        )


def _classes(
    features: Tensor, labels: Tensor | None, lids: Tensor, points: Tensor | None, names: Sequence[str]
) -> list[dict[str, Any]]:
    """One line a class, empty without labels or with a single one; ``points`` are the labels of the LIDs."""
    if labels is None or points is None or len(values := labels.unique()) < 2:
        return []
    total = float(features.double().var(dim=0).sum()) or 1.0
    lines = []
    for value in values.tolist():
        members = labels == value
        own, own_lids = features[members].double(), lids[points == value]
        lines.append(
            {
                "class": str(names[value]) if 0 <= value < len(names) else str(value),
                "samples": int(members.sum()),
                "lid": float(own_lids.double().log().mean().exp()) if len(own_lids) else None,
                "effective_rank": float(effective_rank(own, center=True)),
                "within_variance": float(own.var(dim=0, correction=0).sum()) / total,
            }
        )
    return lines


def _umap(plot: Callable[[Path], None]) -> bytes:
    """The plot; none, with a warning, if it fails: the figures do not depend on it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "umap.png")
        try:
            plot(path)
        except Exception as error:
            warnings.warn(f"UMAP is left out ({type(error).__name__}: {error}).", stacklevel=2)
            return b""
        return path.read_bytes()


def _space_dict(space: Space) -> dict[str, Any]:
    levels = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
    quantiles = torch.quantile(space.lids.double(), torch.tensor(levels, dtype=torch.float64))
    figures = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in space.scalars().items()
    }
    return {
        **figures,
        "attainable_rank": space.attainable,
        "verdict": judge(space).kind,
        "lid_quantiles": dict(zip(map(str, levels), quantiles.tolist(), strict=True)),
        "spectrum": space.spectrum.tolist(),
    }


def summary_table(diagnoses: Sequence[Diagnosis]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the figures as text, a column for each kind of features of each input."""
    columns = [(each, name, space) for each in diagnoses for name, space in each.spaces.items()]
    several = len(diagnoses) > 1
    header = ["", *(f"{each.source.name}, {name}" if several else name for each, name, _ in columns)]
    lines = [
        [label, *(_cell(getattr(space, figure), decimals) for _, _, space in columns)]
        for figure, (label, decimals) in TABLE.items()
        if any(getattr(space, figure) is not None for _, _, space in columns)
    ]
    verdicts = ["verdict", *(judge(space).kind for _, _, space in columns)]
    information = [each.information.get("mutual_information") for each, _, _ in columns]
    shared = [["I(R;Z), nats", *(_cell(value, 2) for value in information)]] if any(information) else []
    return header, [verdicts, *lines, *shared]


def _cell(value: float | None, decimals: int) -> str:
    return "–" if value is None else f"{value:.{decimals}f}"


def results(diagnoses: Sequence[Diagnosis]) -> dict[str, Any]:
    """The content of ``diagnosis.json``."""
    return {"thresholds": THRESHOLDS, "inputs": [each.as_dict() for each in diagnoses]}
