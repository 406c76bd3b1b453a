"""The tracker in a plain loop, against the functions on all rows at once."""

from __future__ import annotations

import math

import pytest
import timm
import torch

from solo_dimreg import DimensionalityTracker, diagnose
from solo_dimreg.errors import ConfigError
from solo_dimreg.functional import (
    alpha_req,
    effective_rank,
    geometric_mean_lid,
    matrix_entropy,
    matrix_mutual_information,
    off_diagonal_correlation,
    rankme,
    uniformity,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tracked(features: torch.Tensor, embeddings: torch.Tensor | None = None, batch: int = 32, **options: int):
    tracker = DimensionalityTracker(**options)
    for start in range(0, len(features), batch):
        part = slice(start, start + batch)
        tracker.update(features[part], None if embeddings is None else embeddings[part])
    return tracker


def test_a_plain_loop_over_a_timm_model() -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tracker = DimensionalityTracker()
    for _ in range(2):
        seen = []
        tracker.reset()
        for images in normal(4, 24, 3, 32, 32):
            features = model(images)
            optimizer.zero_grad()
            features.square().mean().backward()
            optimizer.step()
            tracker.update(features)
            seen.append(features.detach())
        figures = tracker.compute()
    x = torch.cat(seen)
    expected = {
        "effective_rank": effective_rank(x, center=True),
        "rankme": rankme(x),
        "alpha_req": alpha_req(x),
        "lid": geometric_mean_lid(x, k=32),
        "lid_mle": geometric_mean_lid(x, k=32, estimator="mle"),
        "uniformity": uniformity(x),
        "matrix_entropy": matrix_entropy(x),
        "matrix_entropy_1": matrix_entropy(x, order=1),
        "off_diagonal_correlation": off_diagonal_correlation(x),
        "samples": torch.tensor(96.0),
        "dimensions": torch.tensor(float(model.num_features)),
    }
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value.item(), rel=2e-5, abs=2e-5), name
    assert all(type(value) is float for value in figures.values())


def test_the_effective_rank_in_closed_form() -> None:
    values = torch.linspace(1, 5, 20).double()
    x = normal(300, 20).double()
    basis, _ = torch.linalg.qr(x - x.mean(dim=0))
    p = values / values.sum()
    figures = tracked(basis * values + 7).compute()
    assert figures["effective_rank"] == pytest.approx((-(p * p.log()).sum()).exp().item(), rel=1e-6)


def test_merged_trackers_are_one_on_all() -> None:
    x, z = normal(400, 10), normal(400, 10)[:, :3] + normal(400, 3, seed=1)
    whole = tracked(x, z).compute()
    assert whole["mutual_information"] == pytest.approx(matrix_mutual_information(x, z).item(), rel=1e-4)
    assert whole["z_effective_rank"] == pytest.approx(effective_rank(z, center=True).item(), rel=1e-5)
    first, second = tracked(x[:150], z[:150]), tracked(x[150:], z[150:])
    alone = first.compute()
    first.merge(second)
    first.merge(DimensionalityTracker())
    assert first.compute() == pytest.approx(whole, rel=1e-6, nan_ok=True)
    assert alone["samples"] == 150 and second.compute()["samples"] == 250
    assert alone["effective_rank"] != pytest.approx(whole["effective_rank"], rel=1e-6)
    first.reset()
    first.merge(second)
    assert first.compute()["samples"] == 250


def test_of_more_samples_than_are_kept_the_spectra_are_those_of_all() -> None:
    x = normal(3000, 10).sort(dim=0).values
    figures = tracked(x, max_samples=1000).compute()
    assert figures["effective_rank"] == pytest.approx(effective_rank(x, center=True).item(), rel=1e-5)
    assert figures["rankme"] == pytest.approx(rankme(x).item(), rel=1e-5)
    # The choice is of the whole stream, though it is sorted, and 512 of 1,000 are no neighbours.
    assert figures["uniformity"] == pytest.approx(uniformity(x).item(), rel=0.05)
    assert math.isnan(figures["lid_512"])
    kept = tracked(x)
    assert kept.compute()["lid_512"] == pytest.approx(diagnose(kept.sample["features"]).lid_512)
    assert tracked(x, max_samples=1000, seed=5).compute()["lid"] != figures["lid"]


def test_features_that_are_not_finite_are_nan() -> None:
    x = normal(40, 4)
    x[7, 2] = torch.inf
    figures = tracked(x, normal(40, 3)).compute()
    assert math.isnan(figures["effective_rank"]) and math.isnan(figures["lid"])
    assert figures["samples"] == 40 and "mutual_information" not in figures


def test_what_it_refuses() -> None:
    tracker = DimensionalityTracker()
    with pytest.raises(ValueError, match="has seen no features"):
        tracker.compute()
    tracker.update(normal(5, 4))
    with pytest.raises(ValueError, match="as wide as before, 4, got 3"):
        tracker.update(normal(5, 3))
    with pytest.raises(ValueError, match=r"shape \(B, D\)"):
        tracker.update(normal(5, 4, 2, 2))
    with pytest.raises(ValueError, match="embeddings must come with every batch"):
        tracker.update(normal(5, 4), normal(5, 2))
    with pytest.raises(ValueError, match="as wide as before"):
        tracker.merge(tracked(normal(5, 3)))
    with pytest.raises(ConfigError, match="max_samples must be an integer >= 3, got 0"):
        DimensionalityTracker(max_samples=0)
    assert tracker.compute()["samples"] == 5
