"""Statistics of features that arrive batch by batch; their memory does not grow with the samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from solo_dimreg.diagnosis.moments import Moments
from solo_dimreg.distributed import rank, world_size
from solo_dimreg.functional._checks import check_features
from solo_dimreg.functional._precision import with_float64
from solo_dimreg.functional._rows import KEPT_ROWS
from solo_dimreg.functional.neighbours import nearest_neighbours


@dataclass(frozen=True)
class Sample:
    """A sample: features (n, D), embeddings (n, d) or None, and labels (n,) or None."""

    features: Tensor
    embeddings: Tensor | None
    labels: Tensor | None


class FeatureStatistics:
    """Count, mean, covariance and cross-covariance of features and embeddings, and a random sample of them.

    The moments are updated in float64 by the pairwise formula of [1], and do not depend on the batches.
    Features and embeddings are treated as one vector, which gives the cross-covariance too. The sample is
    uniform and without replacement: each row draws a number, and the rows with the smallest numbers stay [2].
    This holds for merged statistics too. Memory is O((D + d)^2 + n (D + d)). As long as there are fewer rows
    than D + d and no more than n, it is O(n (D + d)), and the moments come from the sample.

    References:
        [1] Chan, Golub & LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances,
            COMPSTAT 1982; for one sample at a time it is Welford's.
        [2] Efraimidis & Spirakis, Weighted Random Sampling with a Reservoir, Information Processing Letters
            2006, with equal weights.

    Args:
        sample_size: n, the number of samples kept.
        seed: seed of the choice, different for each process; None stands for the rank of the process.

    Example:
        >>> statistics = FeatureStatistics()
        >>> for features in torch.randn(4, 100, 16):
        ...     statistics.update(features)
        >>> statistics.features.count
        400
    """

    def __init__(self, sample_size: int = KEPT_ROWS, seed: int | None = None) -> None:
        self.sample_size = sample_size
        self.count = 0
        self._width: int | None = None
        self._mean = torch.zeros(0)
        self._scatter: Tensor | None = None  # None as long as the sample has all rows, and they are few
        self._resolution = 0.0
        self._generator = torch.Generator().manual_seed(rank() if seed is None else seed)
        self._keys = torch.zeros(0, dtype=torch.float64)
        self._sample: list[Tensor | None] = []

    def update(
        self, features: Tensor, embeddings: Tensor | None = None, labels: Tensor | None = None
    ) -> None:
        """Add a batch.

        Args:
            features: shape (B, D).
            embeddings: shape (B, d); with every batch, or with none.
            labels: shape (B,), integer; with every batch, or with none.

        Raises:
            ValueError: the shapes do not fit each other or the batches before.
        """
        self._check([features, embeddings, labels])
        features = with_float64(features)
        embeddings, labels = (None if kind is None else with_float64(kind) for kind in (embeddings, labels))
        batch = [features, embeddings, labels]
        kinds = [kind for kind in (features, embeddings) if kind is not None]
        joint = torch.cat([kind.detach().double() for kind in kinds], dim=1)
        if self._width is None:
            self._width = features.shape[1]
            self._mean = joint.new_zeros(joint.shape[1])
        self._resolution = max(self._resolution, *(torch.finfo(kind.dtype).eps for kind in kinds))
        mean = joint.mean(dim=0)
        self._make_room(len(joint))
        self._combine(len(joint), mean)
        if self._scatter is not None:
            joint -= mean
            self._scatter.addmm_(joint.T, joint)
        keys = torch.rand(len(joint), generator=self._generator, dtype=torch.float64)
        self._keep(keys, [None if kind is None else kind.detach() for kind in batch])

    def merge(self, other: FeatureStatistics) -> None:
        """Add all samples of ``other``; the moments then cover both.

        Raises:
            ValueError: the widths of the two differ.
        """
        if other.count == 0:
            return
        if self.count:
            self._check(other._sample)
        else:
            self._width = other._width
            self._mean = torch.zeros_like(other._mean)
        self._resolution = max(self._resolution, other._resolution)
        self._make_room(other.count)
        self._combine(other.count, other._mean)
        if self._scatter is not None:
            self._scatter += other._known_scatter()
        self._keep(other._keys, other._sample)

    def gather(self) -> FeatureStatistics:
        """Return the statistics of all processes together, the same on each; this is a collective call."""
        if world_size() == 1:
            return self
        everyone: list[dict[str, Any]] = [{} for _ in range(world_size())]
        dist.all_gather_object(everyone, self._state())
        total = FeatureStatistics(self.sample_size)
        for state in everyone:
            other = FeatureStatistics(self.sample_size)
            vars(other).update(state)
            total.merge(other)
        return total

    @property
    def features(self) -> Moments:
        """Return the moments of the features."""
        return self._moments(slice(None, self._known_width), 0)

    @property
    def embeddings(self) -> Moments | None:
        """Return the moments of the embeddings, or None without embeddings."""
        width = self._known_width
        return self._moments(slice(width, None), 1) if len(self._mean) > width else None

    @property
    def cross_covariance(self) -> Tensor | None:
        """Return the covariance of features and embeddings, (D, d), divided by N - 1, or None."""
        width = self._known_width
        if len(self._mean) == width:
            return None
        return self._known_scatter()[:width, width:] / max(self.count - 1, 1)

    @property
    def sample(self) -> Sample:
        """Return the sample in the order of arrival, which holds all samples if there are at most n."""
        features, embeddings, labels = self._sample
        assert features is not None
        return Sample(features, embeddings, labels)

    @property
    def _known_width(self) -> int:
        if self._width is None:
            raise ValueError(
                "there is nothing to compute: update() has seen no features since the last reset()."
            )
        return self._width

    def _moments(self, part: slice, kind: int) -> Moments:
        mean = self._mean[part]
        if self._scatter is None:
            return Moments(self.count, mean, self._resolution, rows=self._sample[kind])
        return Moments(self.count, mean, self._resolution, scatter=self._scatter[part, part])

    def _make_room(self, more: int) -> None:
        """Replace the rows by their scatter matrix if ``more`` rows would no longer be the smaller side."""
        total = self.count + more
        if self._scatter is None and (total >= len(self._mean) or total > self.sample_size):
            self._scatter = self._known_scatter()

    def _known_scatter(self) -> Tensor:
        if self._scatter is not None:
            return self._scatter
        if not self.count:
            return self._mean.new_zeros(len(self._mean), len(self._mean))
        rows = torch.cat([each.double() for each in self._sample[:2] if each is not None], dim=1)
        return (rows - self._mean).T @ (rows - self._mean)

    def _check(self, batch: list[Tensor | None]) -> None:
        names = ("features", "embeddings", "labels")
        features = batch[0]
        for name, new in zip(names, batch, strict=True):
            if new is None:
                continue
            if name != "labels":
                check_features(name, new)
            if features is not None and len(new) != len(features):
                raise ValueError(f"{name}: {len(new)} rows for {len(features)} of features.")
        for name, new, old in zip(names, batch, self._sample, strict=False):
            if (new is None) != (old is None):
                raise ValueError(f"{name} must come with every batch, or with none.")
            if new is not None and old is not None and new.shape[1:] != old.shape[1:]:
                raise ValueError(f"{name} must be as wide as before, {old.shape[1]}, got {new.shape[1]}.")

    def _combine(self, count: int, mean: Tensor) -> None:
        """Add the count and the mean of another group, and the scatter from the distance of the means."""
        total = self.count + count
        delta = mean - self._mean
        if self._scatter is not None:
            self._scatter.addr_(delta, delta, alpha=self.count * count / total)
        self._mean += delta * (count / total)
        self.count = total

    def _keep(self, keys: Tensor, rows: list[Tensor | None]) -> None:
        """Put the rows whose keys are among the smallest into the sample."""
        if len(self._keys) == self.sample_size:
            eligible = (keys < self._keys.max()).nonzero().squeeze(1)
            keys, rows = keys[eligible], [None if row is None else row[eligible] for row in rows]
        if self._sample:
            pairs = zip(self._sample, rows, strict=True)
            rows = [None if old is None or new is None else torch.cat([old, new]) for old, new in pairs]
            keys = torch.cat([self._keys, keys])
        else:  # the caller may change its tensors later
            rows = [None if row is None else row.clone() for row in rows]
        if len(keys) > self.sample_size:
            kept = keys.topk(self.sample_size, largest=False).indices.sort().values
            keys, rows = keys[kept], [None if row is None else row[kept] for row in rows]
        self._keys, self._sample = keys, rows

    def _state(self) -> dict[str, Any]:
        """Return the state that another process needs to merge: all but the generator, on the CPU."""
        state = {name: value for name, value in vars(self).items() if name != "_generator"}
        state["_sample"] = [None if rows is None else rows.cpu() for rows in self._sample]
        return {name: value.cpu() if isinstance(value, Tensor) else value for name, value in state.items()}


class NeighbourSearch:
    """A search for the nearest neighbours of some samples among all samples, which arrive batch by batch.

    Args:
        queries: shape (Q, D).
        indices: the place of each query among the arriving samples, counted from 0, shape (Q,). A query is
            not its own neighbour.
        k: number of neighbours.
    """

    def __init__(self, queries: Tensor, indices: Tensor, k: int) -> None:
        self._queries = _at_least_float32(queries)
        self._indices = indices.to(queries.device)
        self._distances = self._queries.new_full((len(queries), k), torch.inf)
        self._seen = 0

    def update(self, rows: Tensor) -> None:
        """Search the next batch, shape (B, D), for neighbours."""
        k = self._distances.shape[1]
        # One more than asked for, since the query itself may be found.
        found = nearest_neighbours(self._queries, _at_least_float32(rows), min(k + 1, len(rows)), None)
        itself = found[1] == (self._indices - self._seen)[:, None]
        distances = found[0].masked_fill(itself, torch.inf)
        self._distances = torch.cat([self._distances, distances], 1).topk(k, dim=1, largest=False).values
        self._seen += len(rows)

    @property
    def distances(self) -> Tensor:
        """Return the distances, ascending, shape (Q, k), or (Q, N - 1) if fewer samples have arrived."""
        return self._distances[:, : max(self._seen - 1, 0)].float()


def _at_least_float32(rows: Tensor) -> Tensor:
    return rows.to(torch.promote_types(rows.dtype, torch.float32))
