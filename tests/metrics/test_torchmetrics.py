"""The metrics as torchmetrics: against the functions on all rows, and in what torchmetrics does with them."""

from __future__ import annotations

import doctest
import pickle
from typing import Any

import pytest
import torch
from torchmetrics import Metric, MetricCollection

from solo_dimreg import functional, metrics
from solo_dimreg.errors import ConfigError
from solo_dimreg.metrics import torchmetrics_classes
from solo_dimreg.metrics.registry import METRICS


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = normal(300, 12) * torch.linspace(1, 3, 12)
Z = X + 0.5 * normal(300, 12, seed=1)
PAIRS = torch.stack([X, Z], dim=1).flatten(0, 1)
# Each metric, and what it must be.
EXPECTED: dict[str, tuple[Metric, torch.Tensor]] = {
    "EffectiveRank": (metrics.EffectiveRank(), functional.effective_rank(X, center=True)),
    "EffectiveRank raw": (metrics.EffectiveRank(center=False), functional.effective_rank(X)),
    "RankMe": (metrics.RankMe(), functional.rankme(X)),
    "AlphaReQ": (metrics.AlphaReQ(), functional.alpha_req(X)),
    "GeometricMeanLID": (metrics.GeometricMeanLID(), functional.geometric_mean_lid(X, k=32)),
    "GeometricMeanLID mle": (
        metrics.GeometricMeanLID(k=50, estimator="mle"),
        functional.geometric_mean_lid(X, k=50, estimator="mle"),
    ),
    "MatrixEntropy": (metrics.MatrixEntropy(), functional.matrix_entropy(X)),
    "MatrixEntropy 1": (metrics.MatrixEntropy(order=1), functional.matrix_entropy(X, order=1)),
    "Uniformity": (metrics.Uniformity(), functional.uniformity(X)),
    "OffDiagonalCorrelation": (metrics.OffDiagonalCorrelation(), functional.off_diagonal_correlation(X)),
    "NESum": (metrics.NESum(), functional.nesum(X)),
    "VarianceRank": (metrics.VarianceRank(), functional.variance_rank(X)),
    "SignalRank": (metrics.SignalRank(), functional.signal_rank(X).float()),
    "NoiseShare": (metrics.NoiseShare(), functional.noise_share(X)),
    "RankMeShare": (metrics.RankMeShare(), functional.rankme_share(X)),
    "MeanShare": (metrics.MeanShare(), functional.mean_share(X)),
    "SelfClustering": (metrics.SelfClustering(), functional.self_clustering(X)),
    "TwoNN": (metrics.TwoNN(), functional.two_nn(X)),
    "MSTDimension": (metrics.MSTDimension(), functional.mst_dimension(X)),
    "MatrixMutualInformation": (
        metrics.MatrixMutualInformation(),
        functional.matrix_mutual_information(X, Z),
    ),
    "Alignment": (metrics.Alignment(), functional.alignment(X, Z)),
    "LiDAR": (metrics.LiDAR(), functional.lidar(PAIRS, samples_per_class=2)),
}


def batches(metric: Metric) -> list[tuple[torch.Tensor, ...]]:
    several = (X, Z)[: len(metric.parts)]
    return list(zip(*(rows.split([100, 150, 50]) for rows in several), strict=True))


@pytest.mark.parametrize("name", EXPECTED)
def test_each_is_the_function_of_all_rows(name: str) -> None:
    metric, expected = EXPECTED[name]
    metric.reset()
    for batch in batches(metric):
        metric.update(*batch)
    torch.testing.assert_close(metric.compute(), expected, rtol=1e-5, atol=1e-6)
    copied = pickle.loads(pickle.dumps(metric.clone()))
    torch.testing.assert_close(copied.compute(), expected, rtol=1e-5, atol=1e-6)
    metric.reset()
    first, *rest = batches(metric)
    one = metric(*first)
    for batch in rest:
        metric(*batch)
    torch.testing.assert_close(metric.compute(), expected, rtol=1e-5, atol=1e-6)
    metric.reset()
    metric.update(*first)
    torch.testing.assert_close(one, metric.compute(), rtol=1e-5, atol=1e-6)


def test_each_is_tested_and_each_metric_of_the_monitor_has_one() -> None:
    assert {name.partition(" ")[0] for name in EXPECTED} == set(metrics.__all__)
    estimators = {"lid_mle", "lid_mle_512"}  # options of the LID's class
    names = {name for name, record in METRICS.items() if record.in_monitor} - estimators
    assert len(metrics.__all__) == len(names), names


def test_a_collection_keeps_the_rows_once() -> None:
    collection = MetricCollection(
        {
            "rank": metrics.EffectiveRank(max_samples=80),  # of the moments of all rows
            "rankme": metrics.RankMe(),
            "lid": metrics.GeometricMeanLID(max_samples=80),
            "entropy": metrics.MatrixEntropy(max_samples=80),
            "more": metrics.GeometricMeanLID(max_samples=1000),
            "information": metrics.MatrixMutualInformation(max_samples=1000),
        }
    )
    for r, z in zip(X.split(40), Z.split(40), strict=True):
        collection.update(features=r, embeddings=z)
    assert sorted(map(sorted, collection.compute_groups.values())) == [
        ["entropy", "lid"],
        ["information"],
        ["more"],
        ["rank", "rankme"],
    ]
    values = collection.compute()
    torch.testing.assert_close(values["rank"], EXPECTED["EffectiveRank"][1])
    torch.testing.assert_close(values["more"], EXPECTED["GeometricMeanLID"][1])
    torch.testing.assert_close(values["information"], EXPECTED["MatrixMutualInformation"][1])
    alone = metrics.MatrixEntropy(max_samples=80), metrics.GeometricMeanLID(max_samples=80)
    for metric, name in zip(alone, ("entropy", "lid"), strict=True):
        for r in X.split(40):
            metric.update(r)
        torch.testing.assert_close(values[name], metric.compute())
    collection.reset()
    collection.update(features=X[:9], embeddings=Z[:9])
    torch.testing.assert_close(collection.compute()["rank"], functional.effective_rank(X[:9], center=True))


GROUP = {
    "rank": (metrics.EffectiveRank, lambda x: functional.effective_rank(x, center=True)),
    "rankme": (metrics.RankMe, functional.rankme),
    "lid": (metrics.GeometricMeanLID, lambda x: functional.geometric_mean_lid(x, k=32)),
    "entropy": (metrics.MatrixEntropy, functional.matrix_entropy),
}
A, B, C = X.split(100)


def in_one_group(names: Any = tuple(GROUP), **options: Any) -> MetricCollection:
    """Return metrics of rows and of moments; before torchmetrics 1.5 collections confused their results."""
    return MetricCollection({name: GROUP[name][0]() for name in names}, **options)


def agree(found: dict[str, torch.Tensor], *rows: torch.Tensor, prefix: str = "") -> None:
    for name, (_, function) in GROUP.items():
        torch.testing.assert_close(
            found[prefix + name], function(torch.cat(rows)), msg=lambda m, n=name: n + m
        )
    assert len(found) == len(GROUP)


def test_a_collection_computes_after_each_update() -> None:
    collection = in_one_group()
    for seen in ([A], [A, B], [A, B, C]):
        collection.update(seen[-1])
        agree(collection.compute(), *seen)
        agree(collection.compute(), *seen)
    collection.reset()
    for seen in ([B], [B, A]):
        collection.update(seen[-1])
        agree(collection.compute(), *seen)


def test_a_collection_mixes_forward_and_update() -> None:
    collection = in_one_group()
    agree(collection(A), A)
    agree(collection.compute(), A)
    collection.update(B)
    agree(collection.compute(), A, B)
    agree(collection(C), C)
    agree(collection.compute(), A, B, C)


def test_a_cloned_collection_goes_its_own_way() -> None:
    collection = in_one_group()
    collection.update(A)
    collection.compute()
    other = collection.clone(prefix="val_")
    other.update(B)
    collection.update(C)
    agree(other.compute(), A, B, prefix="val_")
    agree(collection.compute(), A, C)
    other.reset()
    other.update(B)
    agree(pickle.loads(pickle.dumps(other)).compute(), B, prefix="val_")
    agree(collection.compute(), A, C)


def test_the_metrics_of_a_collection_can_be_asked_one_by_one() -> None:
    collection = in_one_group()
    for seen in ([A], [A, B], [A, B, C]):
        collection.update(seen[-1])
        agree({name: metric.compute() for name, metric in collection.items()}, *seen)
        agree({name: collection[name].compute() for name in GROUP}, *seen)
        agree(collection.compute(), *seen)


def test_a_collection_of_collections_and_a_saved_one() -> None:
    parts = [in_one_group(names, prefix="train_") for names in (("rank", "lid"), ("rankme", "entropy"))]
    collection = MetricCollection(parts)
    for seen in ([A], [A, B]):
        collection.update(seen[-1])
        agree(collection.compute(), *seen, prefix="train_")
    saved, loaded = in_one_group(), in_one_group()
    for each in (saved, loaded):
        each.persistent(True)
    saved.update(A)
    saved.compute()
    loaded.load_state_dict(saved.state_dict())
    loaded.update(C)
    agree(loaded.compute(), A, C)


@pytest.mark.parametrize("call", ["update", "forward"])
def test_of_many_rows_a_uniform_choice_is_kept(call: str) -> None:
    metric = metrics.MatrixMutualInformation(max_samples=200)
    numbers = torch.arange(10_000.0)
    for part in numbers.split(64):
        rows = part[:, None] + torch.tensor([0.0, 0.5])
        getattr(metric, call)(rows, -rows)
        assert sum(len(rows) for rows in metric.features) <= 2 * 200 + 64
    features, embeddings, _ = metric._chosen()
    assert features.shape == (200, 2) and torch.equal(features, -embeddings)
    kept = features[:, 0]
    assert len(kept.unique()) == 200 and torch.equal(kept, kept.sort().values)
    # 200 uniform draws: the mean is within 4 of its standard deviations.
    assert abs(kept.mean() - 5000) < 4 * 10_000 / (12 * 200) ** 0.5


@pytest.mark.skipif(not hasattr(Metric, "merge_state"), reason="torchmetrics has merge_state from 1.5 on")
@pytest.mark.parametrize("name", EXPECTED)
def test_merged_metrics_are_one_on_all(name: str) -> None:
    metric, expected = EXPECTED[name]
    parts = [metric.clone() for _ in range(3)]
    for part, batch in zip(parts, batches(metric), strict=True):
        part.reset()
        part.update(*batch)
    for other in parts[1:]:
        parts[0].merge_state(other)
    torch.testing.assert_close(parts[0].compute(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: metrics.EffectiveRank(center=1), "center must be true or false"),
        (lambda: metrics.RankMe(max_samples=2), "max_samples must be an integer >= 3"),
        (lambda: metrics.GeometricMeanLID(k=1), "k must be an integer >= 2"),
        (lambda: metrics.GeometricMeanLID(estimator="mlee"), "Unknown estimator 'mlee'. Did you mean 'mle'"),
        (lambda: metrics.MatrixEntropy(order=3), "order must be 1 or 2"),
        (lambda: metrics.MatrixMutualInformation(order=0), "order must be 1 or 2"),
    ],
)
def test_wrong_options_are_refused(build: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build()


def test_wrong_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"features must have shape \(B, D\)"):
        metrics.RankMe().update(torch.zeros(3))
    with pytest.raises(ValueError, match="second: 2 rows for 3 of first"):
        metrics.Alignment().update(torch.zeros(3, 2), torch.zeros(2, 2))


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("name", metrics.__all__)
def test_nothing_is_computed_of_no_rows(name: str) -> None:
    metric = getattr(metrics, name)()
    for _ in range(2):
        with pytest.raises(
            ValueError, match=rf"^{name}: compute\(\) needs rows, and update\(\) has had none"
        ):
            metric.compute()
        metric.update(*[X] * len(metric.parts))
        metric.reset()


def test_the_example() -> None:
    (example, *_) = doctest.DocTestFinder(recurse=False).find(
        metrics.EffectiveRank, "EffectiveRank", globs={**vars(torchmetrics_classes), "torch": torch}
    )
    assert example.examples and doctest.DocTestRunner().run(example).failed == 0


def test_what_is_kept_is_a_copy() -> None:
    x = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    metric = metrics.EffectiveRank()
    metric.update(x)
    expected = metric.compute().item()
    metric.reset()
    metric.update(x)
    x.relu_()
    assert metric.compute().item() == pytest.approx(expected, rel=1e-6)


def test_a_metric_of_moments_needs_no_rows_and_forgives_a_large_mean() -> None:
    metric = metrics.EffectiveRank()
    for batch in (X + 1000).split(50):
        metric.update(batch)
    assert metric.sums.shape == (13, 13) and metric.sums[0, 0] == 300
    assert metric.compute().item() == pytest.approx(EXPECTED["EffectiveRank"][1].item(), rel=1e-3)
    metric.reset()
    for _ in range(100):
        metric.update(torch.full((50, 64), 0.3))
    assert metric.compute() == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_have_no_metrics(value: float) -> None:
    rows = X.clone()
    rows[3, 2] = value
    for metric in (metrics.EffectiveRank(), metrics.NESum(), metrics.MeanShare(), metrics.RankMe()):
        assert metric(rows).isnan() and metric.compute().isnan()


def test_a_batch_of_another_width_is_refused() -> None:
    metric = metrics.EffectiveRank()
    metric.update(X)
    with pytest.raises(ValueError, match="width 3, and had"):
        metric.update(X[:, :3])


def test_sums_stay_where_they_are_if_a_device_has_no_float64() -> None:
    """Stands in for MPS, whose TypeError it raises."""

    def move(state: torch.Tensor) -> torch.Tensor:
        if state.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return state

    metric = metrics.EffectiveRank()
    metric.update(X)
    before = metric.compute()
    assert metric._apply(move).compute() == before
