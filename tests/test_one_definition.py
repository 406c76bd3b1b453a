"""One name, one value: the same rows give the same number in every front end."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from solo_dimreg import DimensionalityTracker, diagnose, functional
from solo_dimreg.metrics.numbers import OF_ONE_SET
from solo_dimreg.metrics.registry import METRICS
from solo_dimreg.metrics.streaming import FeatureStatistics
from solo_dimreg.monitor.buffer import measure
from solo_dimreg.plugins import registered


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def classes() -> dict[str, Any]:
    metrics = pytest.importorskip("solo_dimreg.metrics.torchmetrics_classes")
    return {
        "effective_rank": metrics.EffectiveRank(),
        "lid": metrics.GeometricMeanLID(),
        "lid_mle": metrics.GeometricMeanLID(estimator="mle"),
        "rankme": metrics.RankMe(),
        "variance_rank": metrics.VarianceRank(),
        "signal_rank": metrics.SignalRank(),
        "noise_share": metrics.NoiseShare(),
        "rankme_share": metrics.RankMeShare(),
        "alpha_req": metrics.AlphaReQ(),
        "matrix_entropy": metrics.MatrixEntropy(),
        "uniformity": metrics.Uniformity(),
        "off_diagonal_correlation": metrics.OffDiagonalCorrelation(),
        "nesum": metrics.NESum(),
        "mean_share": metrics.MeanShare(),
        "self_clustering": metrics.SelfClustering(),
        "two_nn": metrics.TwoNN(),
        "mst_dimension": metrics.MSTDimension(),
    }


X = normal(160, 24) * torch.linspace(0.1, 2, 24) + 1
ROWS = {
    "distinct": X,
    "repeated": torch.cat([X, X[:50].repeat(4, 1)]),
    "low rank": normal(120, 4, seed=2) @ normal(4, 30, seed=3),
    "wide": normal(70, 100, seed=4),
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_every_name_of_features(rows: torch.Tensor) -> None:
    torchmetrics = classes()
    names = sorted(set(registered("metrics")) - {"lid_mle_512"})
    assert set(names) == set(torchmetrics)  # a new metric is to be compared here, too
    assert set(names) <= set(OF_ONE_SET)
    tracker = DimensionalityTracker()
    for batch in rows.split(64):
        tracker.update(batch)
        for metric in torchmetrics.values():
            metric.update(batch)
    tracked, diagnosed = tracker.compute(), diagnose(rows)
    monitored = measure(names, [rows])
    for name in names:
        found = [tracked[name], getattr(diagnosed, name), torchmetrics[name].compute().item()]
        found = [float("nan") if value is None else value for value in found]
        expected = pytest.approx([monitored[name]] * len(found), rel=1e-3, abs=2e-5, nan_ok=True)
        assert found == expected, name
    assert monitored["lid"] == pytest.approx(functional.geometric_mean_lid(rows, k=32).item(), rel=1e-6)


@pytest.mark.parametrize("kind", ["distinct", "repeated"])
def test_every_name_of_more_rows_than_are_compared_in_pairs(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("solo_dimreg.functional._rows.PAIRWISE_ROWS", 90)
    test_every_name_of_features(ROWS[kind])
    for name in ("two_nn", "mst_dimension"):
        known = registered("metrics")[name].value
        torch.testing.assert_close(known(ROWS[kind]), known(X))


def test_all_front_ends_keep_as_many_rows_unless_told() -> None:
    metrics = pytest.importorskip("solo_dimreg.metrics.torchmetrics_classes")
    diagnosed = FeatureStatistics().sample_size
    assert DimensionalityTracker().max_samples == metrics.EffectiveRank().max_samples == diagnosed == 10_000


def test_every_name_of_two_inputs() -> None:
    metrics = pytest.importorskip("solo_dimreg.metrics.torchmetrics_classes")
    z = X[:, :10] ** 2 + normal(160, 10, seed=6)
    second = X + 0.3 * normal(160, 24, seed=7)
    known = {
        "mutual_information": (metrics.MatrixMutualInformation(), (X, z)),
        "alignment": (metrics.Alignment(), (X, second)),
        "lidar": (metrics.LiDAR(), (X, second)),
    }
    assert known.keys() == {
        name for name, record in METRICS.items() if record.inputs not in ("rows", "tokens")
    }
    monitored = measure([*known], [X, second], [z])
    for name, (metric, inputs) in known.items():
        metric.update(*inputs)
        assert metric.compute().item() == pytest.approx(monitored[name], rel=1e-5), name
    tracker = DimensionalityTracker()
    tracker.update(X, z)
    several = [tracker.compute()["mutual_information"], diagnose(X, embeddings=z).mutual_information]
    assert several == pytest.approx([monitored["mutual_information"]] * 2, rel=1e-4)
