"""Rows that come more than once: the metrics of neighbours are those of the distinct rows."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from solo_dimreg import DimensionalityTracker, diagnose
from solo_dimreg.diagnosis.diagnose import diagnose as diagnose_source
from solo_dimreg.diagnosis.neighbourhoods import digests_of, first_of
from solo_dimreg.diagnosis.sources.opening import Source
from solo_dimreg.functional import (
    geometric_mean_lid,
    ldreg_loss,
    local_intrinsic_dimensionality,
    mst_dimension,
    two_nn,
)
from solo_dimreg.functional._rows import distinct_rows
from solo_dimreg.metrics.neighbourhoods import random_indices
from solo_dimreg.metrics.numbers import representation_numbers
from solo_dimreg.metrics.streaming import FeatureStatistics
from solo_dimreg.plugins import registered

K = 32


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


X = normal(300, 16) * torch.linspace(0.5, 2, 16)
REPEATED = {
    "every row 3 times": X.repeat(3, 1),
    "neighbouring copies": X.repeat_interleave(2, dim=0),
    "an oversampled class": torch.cat([X, X[:100].repeat(12, 1)]),
}


def skdim_lid(x: torch.Tensor, estimator: str) -> float:
    """The geometric mean of scikit-dimension's estimates, in the convention of LDReg."""
    skdim_id = pytest.importorskip("skdim.id")
    kind = {"mom": skdim_id.MOM, "mle": skdim_id.MLE}[estimator]
    points = np.array(kind().fit(x.double().numpy(), n_neighbors=K).dimension_pw_)
    # See local_intrinsic_dimensionality: theirs + 1 = (LID + 1) k / (k - 1), and theirs = LID (k - 1) / k.
    ours = (points + 1) * (K - 1) / K - 1 if estimator == "mom" else points * K / (K - 1)
    return float(np.exp(np.log(ours).mean()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("estimator", ["mom", "mle"])
def test_the_lid_is_that_of_scikit_dimension_on_the_distinct_rows(estimator: str, dtype: torch.dtype) -> None:
    expected = pytest.approx(skdim_lid(X, estimator), rel=1e-4)
    for rows in (X, *REPEATED.values()):
        assert geometric_mean_lid(rows.to(dtype), k=K, estimator=estimator).item() == expected


@pytest.mark.parametrize("rows", REPEATED.values(), ids=REPEATED)
def test_every_front_end_counts_them_once(rows: torch.Tensor) -> None:
    metrics = pytest.importorskip("solo_dimreg.metrics.torchmetrics_classes")
    tracker = DimensionalityTracker()
    for batch in rows.split(64):
        tracker.update(batch)
    tracked, found = tracker.compute(), diagnose(rows)
    known = registered("metrics")
    collected = {"lid": metrics.GeometricMeanLID(), "two_nn": metrics.TwoNN()}
    collected["lid_mle"] = metrics.GeometricMeanLID(estimator="mle")
    collected["mst_dimension"] = metrics.MSTDimension()
    expected = {
        "lid": geometric_mean_lid(X, k=K),
        "lid_mle": geometric_mean_lid(X, k=K, estimator="mle"),
        "two_nn": two_nn(X),
        "mst_dimension": mst_dimension(X),
    }
    for name, value in expected.items():
        collected[name].update(rows)
        several = [
            tracked[name],
            getattr(found, name),
            float(known[name].value(rows)),
            float(collected[name].compute()),
        ]
        assert several == pytest.approx([value.item()] * 4, rel=1e-4), name
    assert found.duplicates == tracked["duplicates"] == len(rows) - 300
    assert f"{len(rows) - 300} of {len(rows)} samples equal an earlier one exactly" in found.caution


def test_few_distinct_rows_are_few() -> None:
    found = diagnose(X[:32].repeat(10, 1))
    assert "Only 32 distinct samples" in found.caution
    wide = diagnose(normal(70, 100).repeat(2, 1))
    assert "Fewer distinct samples (70) than dimensions (100) of the features" in wide.caution
    assert diagnose(X).caution == "" and diagnose(X).duplicates == 0


def test_each_space_has_its_cautions() -> None:
    few = normal(100, 4).repeat(3, 1)
    equal = "200 of 300 embeddings equal an earlier one exactly; LID, TwoNN and the spanning tree count equal"
    assert diagnose(X, embeddings=few).caution == f"{equal} embeddings once."
    assert "The mean of all embeddings holds 99" in diagnose(X, embeddings=X + 40).caution
    # What holds for both is said once.
    both = diagnose(X[:40].repeat(2, 1), embeddings=X[:40].repeat(2, 1)).caution
    assert both.startswith("40 of 80 samples equal an earlier one") and both.count("Only 40 distinct") == 1
    assert both.count("exactly") == 1 and "embeddings" not in both


def test_near_copies_and_two_scales_are_told_of() -> None:
    copies = X.repeat(3, 1) + 1e-3 * normal(900, 16, seed=1)
    assert diagnose(copies).caution.startswith("100% of the samples have near copies, at least 10 times")
    scaled = normal(600, 64) * torch.where(torch.arange(600) < 400, 1e-3, 1.0)[:, None]
    assert "two scales: 67% of the samples have their neighbours" in diagnose(scaled).caution
    (times,) = re.findall(r"neighbours (\d+) times nearer", diagnose(scaled).caution)
    assert 300 < int(times) < 1_000
    assert "The embeddings lie at two scales" in diagnose(normal(600, 8), embeddings=scaled).caution
    # Groups with fewer points than neighbours are no scale.
    groups = normal(30, 128)[torch.randint(30, (1_000,), generator=torch.Generator().manual_seed(1))]
    for rows in (groups + 0.1 * normal(1_000, 128), normal(400, 1), scaled[380:], X / X.norm(dim=1)[:, None]):
        assert diagnose(rows).caution.count("scales") == diagnose(rows).caution.count("copies") == 0
    half = torch.cat([X, X[:60] + 1e-3 * normal(60, 16)])
    assert "33% of the samples have near copies" in diagnose(half).caution


def test_the_advice_stays_below_the_number_of_rows_that_are_read() -> None:
    wide = diagnose(normal(70, 20_000))
    assert wide.verdict.kind == "cannot tell"
    assert (
        "give fewer dimensions than rows, as a diagnosis reads at most 10000 rows of this width"
        in wide.verdict.reason
    )
    assert "give at least 100, better 400, if there are as many" in diagnose(normal(70, 100)).verdict.reason


def source(rows: torch.Tensor, labels: torch.Tensor, embeddings: torch.Tensor | None = None) -> Source:
    def batches(indices: Sequence[int] | None) -> Iterator[Any]:
        chosen = torch.arange(len(rows)) if indices is None else torch.tensor(indices)
        for part in chosen.split(99):
            yield rows[part], None if embeddings is None else embeddings[part], labels[part]

    return Source("x", "", len(rows), batches)


@pytest.fixture
def few_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """400 samples are kept instead of 10,000: of more, the neighbours are sought as the batches pass by."""
    fewer = partial(FeatureStatistics, sample_size=400)
    for module in ("diagnosis.diagnose", "metrics.numbers"):
        monkeypatch.setattr(f"solo_dimreg.{module}.FeatureStatistics", fewer)


@pytest.mark.usefixtures("few_kept")
def test_rows_are_recognised_across_batches() -> None:
    z, labels = normal(300, 6, seed=1), torch.arange(300) % 3
    found = diagnose_source(source(X.repeat(3, 1), labels.repeat(3), z.repeat(3, 1)))
    few = diagnose(X, labels=labels, embeddings=z)
    for name in ("lid", "lid_mle", "two_nn", "mst_dimension"):
        assert getattr(found.features, name) == pytest.approx(getattr(few, name), rel=1e-4), name
    assert found.embeddings is not None and few.embeddings is not None
    assert found.embeddings.lid == pytest.approx(few.embeddings.lid, rel=1e-4)
    assert [line["lid"] for line in found.classes] == pytest.approx(
        [line["lid"] for line in few.classes], rel=1e-4
    )
    assert found.features.duplicates == 600 and found.features.lid_512 is None
    assert representation_numbers(X.repeat(3, 1))["lid"] == pytest.approx(few.lid, rel=1e-4)


@pytest.mark.usefixtures("few_kept")
def test_more_distinct_rows_than_are_kept() -> None:
    x = normal(1500, 3)
    rows = torch.cat([x[:700], x[:200], x[700:], x[500:600]])
    chosen = random_indices(1500)
    expected = local_intrinsic_dimensionality(x[chosen], x, K, self_indices=chosen).log().mean().exp()
    found = diagnose_source(source(rows, torch.zeros(len(rows)).long())).features
    assert found.duplicates == 300
    assert found.lid == pytest.approx(expected.item(), rel=1e-4)
    assert representation_numbers(rows)["lid"] == pytest.approx(expected.item(), rel=1e-4)
    assert found.two_nn == pytest.approx(two_nn(x).item(), rel=1e-4)
    assert found.mst_dimension == pytest.approx(mst_dimension(x).item(), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_minus_zero_equals_zero(dtype: torch.dtype) -> None:
    rows = torch.tensor([[2.0, 1], [0.0, 1], [2, 1], [-0.0, 1], [0, 5]]).to(dtype)
    first, groups = distinct_rows(rows)
    assert first.tolist() == [0, 1, 4] and groups.tolist() == [0, 1, 0, 1, 2]
    digests = [each for batch in rows.split(2) for each in digests_of(batch)]
    assert first_of(digests).tolist() == [0, 1, 4]


def test_a_reference_with_duplicates() -> None:
    x, reference = normal(20, 4, dtype=torch.float64), normal(90, 4, seed=1, dtype=torch.float64)
    for k in (5, 40):
        expected = geometric_mean_lid(x, reference, k)
        torch.testing.assert_close(geometric_mean_lid(x.repeat(2, 1), reference.repeat(3, 1), k), expected)
        own = torch.arange(20)
        among = geometric_mean_lid(reference[:20], reference, k, self_indices=own)
        twice = geometric_mean_lid(
            reference[:20].repeat(2, 1), reference.repeat(2, 1), k, self_indices=torch.cat([own, own + 90])
        )
        torch.testing.assert_close(twice, among)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_likelihood_leaves_out_neighbours_at_distance_zero(dtype: torch.dtype) -> None:
    """By hand: the first point has neighbours at 0, 1, 2 and 4; the floor of no dtype is in it."""
    x = torch.tensor([[0.0], [0], [1], [2], [4]], dtype=dtype).requires_grad_()
    lids = local_intrinsic_dimensionality(x, k=4, estimator="mle")
    assert lids[0].item() == pytest.approx(3 / (math.log(4) + math.log(2)), rel=1e-6)
    (gradient,) = torch.autograd.grad(ldreg_loss(x, k=4, estimator="mle"), x)
    assert gradient.isfinite().all()
