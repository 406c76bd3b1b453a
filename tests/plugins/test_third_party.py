"""A third party's package with a method, a backbone and a metric, from its installation to an accuracy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from plugin_packages import entries, install, solo_dimreg

from solo_dimreg.plugins import registered
from solo_dimreg.plugins.manager import load_plugins

# As its author would write it: no import of solo-learn, one module, three hooks.
SPREAD = '''
"""Uniformity and alignment (Wang & Isola, 2020) as a method, a small network, and a figure."""

import torch
from torch import nn
from solo_dimreg.functional import alignment, uniformity
from solo_dimreg.plugins import hookimpl


class SmallNetwork(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.num_features = width
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 5, stride=4, padding=2),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    def forward(self, images):
        return self.layers(images)


def axis_share(features):
    """The share of the variance that the largest axis has."""
    variance = features.var(dim=0)
    return variance.max() / variance.sum()


@hookimpl
def register_methods(host):
    class Spread(host.Method):
        large_crops = 2

        def build(self, output_dim: int = 16, weight: float = 1.0):
            if weight < 0:
                raise ValueError(f"weight must be >= 0, got {weight}.")
            self.weight = weight
            self.projector = nn.Linear(self.features_dim, output_dim)

        def loss(self, features, embeddings):
            z1, z2 = (nn.functional.normalize(view, dim=1) for view in embeddings)
            close, apart = alignment(z1, z2), uniformity(torch.cat([z1, z2]))
            return {"loss": close + self.weight * apart, "alignment": close.detach()}

    return {"spread": Spread}


@hookimpl
def register_backbones():
    return {"small_network": SmallNetwork}


@hookimpl
def register_metrics():
    return {"axis_share": axis_share}
'''
BROUGHT = {"spread": "method", "small_network": "backbone", "axis_share": "metric"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site-packages")
    install(folder, "spread-for-dimreg", SPREAD, plugin="spread")
    return folder


def pretrain(site: Path, few_digits: Path, cwd: Path, *overrides: str):
    return solo_dimreg(
        site,
        *("pretrain", "--config-path", "digits", "--config-name", "simclr", "name=spread-digits"),
        *("method=spread", "backbone.name=small_network", "~backbone.kwargs", "max_epochs=1"),
        "scheduler.warmup_epochs=0",
        *("optimizer.batch_size=32", "data.num_workers=0", "checkpoint.dir=out", "~method_kwargs"),
        *(f"data.{split}_path={few_digits / split}" for split in ("train", "val")),
        *overrides,
        cwd=cwd,
    )


def test_everything_is_listed_with_its_package(site: Path) -> None:
    listed = solo_dimreg(site, "methods", "--json")
    assert listed.returncode == 0, listed.stderr
    rows = {row["name"]: row for row in json.loads(listed.stdout)}
    for name, kind in BROUGHT.items():
        known = {"name": name, "kind": kind, "plugin": "spread", "distribution": "spread-for-dimreg"}
        assert rows[name].items() >= known.items()
        assert not rows[name]["description"].startswith("Base ")  # of a class above it
    assert rows["adadim"]["distribution"] == rows["shuffled_dbn"]["distribution"] == "solo-dimreg"
    assert rows["simclr"]["distribution"] == "solo-learn"


def test_the_method_trains_on_the_backbone_and_is_evaluated(
    site: Path, few_digits: Path, tmp_path: Path
) -> None:
    run = pretrain(
        site,
        few_digits,
        tmp_path,
        *("+method_kwargs.output_dim=8", "+backbone.kwargs.width=24"),
        *("+regularizers.ldreg.weight=0.1", "+regularizers.ldreg.k=8", "+regularizers.ldreg.warmup_epochs=0"),
    )
    assert run.returncode == 0, run.stderr
    (metrics,) = tmp_path.glob("out/spread/*/metrics.csv")
    header = metrics.read_text().splitlines()[0]
    assert "train_alignment_epoch" in header and "train_ldreg_epoch" in header
    (checkpoint,) = tmp_path.glob("out/spread/*/*.ckpt")
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert state["projector.weight"].shape == (8, 24)

    options = ("--k", "5", "--feature", "backbone", "--feature", "projector", "--out", "knn.json")
    knn = solo_dimreg(site, "knn", "out/spread", *options, cwd=tmp_path)
    assert knn.returncode == 0, knn.stderr
    accuracies = [row["acc1"] for row in json.loads((tmp_path / "knn.json").read_text())["knn"]]
    assert len(accuracies) == 2 and all(0 <= accuracy <= 100 for accuracy in accuracies)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["+method_kwargs.weight=-1"], ["method_kwargs: weight must be >= 0", "-1"]),
        pytest.param(["+backbone.kwargs.widht=3"], ["backbone.kwargs", "widht"], marks=pytest.mark.slow),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    site: Path, few_digits: Path, tmp_path: Path, overrides: list[str], words: list[str]
) -> None:
    run = pretrain(site, few_digits, tmp_path, *overrides)
    assert run.returncode == 2, run.stderr
    error = run.stderr.strip().splitlines()[-1]
    assert all(word in error for word in words), run.stderr


def test_the_metric_is_a_function_of_features(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(site)
    metric = registered("metrics", load_plugins(entries(site)))["axis_share"]
    assert metric.distribution == "spread-for-dimreg"
    assert float(metric.value(torch.diag(torch.tensor([3.0, 1.0])))) == pytest.approx(0.9)
