"""Statistics of features that arrive batch by batch; their memory does not grow with the samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from solo_dimreg.distributed import rank, world_size
from solo_dimreg.functional._checks import check_features
from solo_dimreg.functional._precision import with_float64
from solo_dimreg.functional._rows import KEPT_ROWS
from solo_dimreg.metrics.moments import Moments


def keep_smallest(size: int, keys: Tensor, rows: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return the ``size`` smallest keys, in the order of arrival, and their rows.

    If each row draws a random key, this is a uniform choice without replacement, of all batches and processes
    together [Efraimidis & Spirakis, Weighted Random Sampling with a Reservoir, 2006, with equal weights].
    """
    if len(keys) <= size:
        return keys, rows
    kept = keys.topk(size, largest=False).indices.sort().values
    return keys[kept], [each[kept] for each in rows]


class FeatureStatistics:
    """Count, mean and covariance of features and embeddings, and a random sample of them.

    The moments are updated in float64 by the pairwise formula of [1], and do not depend on the batches. The
    sample is a uniform choice, see :func:`keep_smallest`. Both hold for merged statistics too. Memory is
    O(D^2 + d^2 + n (D + d)). As long as there are fewer rows than dimensions and no more than n, it is
    O(n (D + d)), and the moments come from the sample.

    References:
        [1] Chan, Golub & LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances,
            COMPSTAT 1982; for one sample at a time it is Welford's.

    Args:
        sample_size: n, the number of samples kept.
        seed: seed of the choice, different for each process; None stands for the rank of the process.
    """

    def __init__(self, sample_size: int = KEPT_ROWS, seed: int | None = None) -> None:
        self.sample_size = sample_size
        self.count = 0
        self._means: dict[str, Tensor] = {}
        self._scatters: dict[str, Tensor] = {}  # none as long as the sample has all rows, and they are few
        self._resolution = 0.0
        self._generator = torch.Generator().manual_seed(rank() if seed is None else seed)
        self._keys = torch.zeros(0, dtype=torch.float64)
        #: The rows of the sample in the order of arrival, all if there are at most n, by name.
        self.sample: dict[str, Tensor] = {}

    def update(
        self, features: Tensor, embeddings: Tensor | None = None, labels: Tensor | None = None
    ) -> None:
        """Add a batch: features (B, D) and, every time or never, embeddings (B, d) and integer labels (B,).

        Raises:
            ValueError: the shapes do not fit each other or the batches before.
        """
        given = {"features": features, "embeddings": embeddings, "labels": labels}
        batch = {name: rows for name, rows in given.items() if rows is not None}
        self._check(batch)
        batch = {name: with_float64(rows).detach() for name, rows in batch.items()}
        self._make_room(batch, len(features))
        for name in self._means:
            self._resolution = max(self._resolution, torch.finfo(batch[name].dtype).eps)
            rows = batch[name].double()
            mean = rows.mean(dim=0)
            self._combine(name, len(rows), mean)
            if name in self._scatters:
                rows = rows - mean
                self._scatters[name].addmm_(rows.T, rows)
        self.count += len(features)
        self._keep(torch.rand(len(features), generator=self._generator, dtype=torch.float64), batch)

    def merge(self, other: FeatureStatistics) -> None:
        """Add all samples of ``other``; the moments then cover both.

        Raises:
            ValueError: the widths of the two differ.
        """
        if other.count == 0:
            return
        self._check(other.sample)
        self._resolution = max(self._resolution, other._resolution)
        self._make_room(other.sample, other.count)
        for name, mean in other._means.items():
            self._combine(name, other.count, mean)
            if name in self._scatters:
                self._scatters[name] += other._scatter(name)
        self.count += other.count
        self._keep(other._keys, other.sample)

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
        if not self.count:
            raise ValueError(
                "there is nothing to compute: update() has seen no features since the last reset()."
            )
        return self._moments("features")

    @property
    def embeddings(self) -> Moments | None:
        """Return the moments of the embeddings, or None without embeddings."""
        return self._moments("embeddings") if "embeddings" in self._means else None

    def _moments(self, name: str) -> Moments:
        rows = None if name in self._scatters else self.sample[name]
        return Moments(self.count, self._means[name], self._resolution, self._scatters.get(name), rows)

    def _make_room(self, batch: Mapping[str, Tensor], more: int) -> None:
        """Replace rows by their scatter matrix if ``more`` rows would no longer be the smaller side."""
        total = self.count + more
        for name in batch.keys() - {"labels"}:
            if not self.count:
                self._means[name] = batch[name].new_zeros(batch[name].shape[1], dtype=torch.float64)
            if total >= len(self._means[name]) or total > self.sample_size:
                self._scatters[name] = self._scatter(name)

    def _scatter(self, name: str) -> Tensor:
        mean = self._means[name]
        if name in self._scatters:
            return self._scatters[name]
        rows = self.sample[name] - mean if self.count else mean.new_zeros(0, len(mean))
        return rows.T @ rows

    def _combine(self, name: str, count: int, mean: Tensor) -> None:
        """Add the mean of another group of rows, and the scatter from the distance of the means."""
        delta, part = mean - self._means[name], count / (self.count + count)
        if name in self._scatters:
            self._scatters[name].addr_(delta, delta, alpha=self.count * part)
        self._means[name] += delta * part

    def _check(self, batch: Mapping[str, Tensor]) -> None:
        for name, rows in batch.items():
            if name != "labels":
                check_features(name, rows)
            if len(rows) != len(batch["features"]):
                raise ValueError(f"{name}: {len(rows)} rows for {len(batch['features'])} of features.")
        for name in ("features", "embeddings", "labels") if self.count else ():
            if (name in batch) != (name in self.sample):
                raise ValueError(f"{name} must come with every batch, or with none.")
            if name in batch and batch[name].shape[1:] != self.sample[name].shape[1:]:
                new, old = batch[name].shape[1], self.sample[name].shape[1]
                raise ValueError(f"{name} must be as wide as before, {old}, got {new}.")

    def _keep(self, keys: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Put the rows whose keys are among the smallest into the sample."""
        if len(self._keys) == self.sample_size:
            eligible = (keys < self._keys.max()).nonzero().squeeze(1)
            keys, batch = keys[eligible], {name: rows[eligible] for name, rows in batch.items()}
        if self.sample:
            batch = {name: torch.cat([self.sample[name], rows]) for name, rows in batch.items()}
            keys = torch.cat([self._keys, keys])
        else:  # the caller may change its tensors later
            batch = {name: rows.clone() for name, rows in batch.items()}
        self._keys, kept = keep_smallest(self.sample_size, keys, [*batch.values()])
        self.sample = dict(zip(batch, kept, strict=True))

    def _state(self) -> dict[str, Any]:
        """Return the state that another process needs to merge: all but the generator, on the CPU."""
        names = ("count", "_means", "_scatters", "_resolution", "_keys", "sample")
        return {name: _on_cpu(vars(self)[name]) for name in names}


def _on_cpu(value: Any) -> Any:
    return {name: each.cpu() for name, each in value.items()} if isinstance(value, dict) else value
