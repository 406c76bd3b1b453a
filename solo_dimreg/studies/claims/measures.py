"""Measure values of a trained run that only claims need."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from solo_dimreg.config.composing import compose, evaluation_settings, other_data
from solo_dimreg.datasets.sprites import FACTORS, read_split
from solo_dimreg.functional import lidar, mst_dimension, rankme
from solo_dimreg.solo_learn import Run, register
from solo_dimreg.training.evaluation import DEVICE, extract_splits, linear_accuracy

# The probe runs in the comparing process, on one device.
ONE_DEVICE = ("devices=[0]", "strategy=auto", "sync_batchnorm=False")
LIDAR_IMAGES, LIDAR_VIEWS = 100, 10
RIDGE = 1e-3  # of the number of images
PENALTIES = tuple(10.0**exponent for exponent in range(-1, 5))


def features_of_views(run: Run) -> Tensor:
    """Return the features of 10 augmented views of each of 100 training images, image by image."""
    features = _outputs_of_views(run, "feats")
    assert features is not None
    return features


def _outputs_of_views(run: Run, name: str) -> Tensor | None:
    """Return what a method calls ``feats`` or ``z`` of these views, or None if it has no such output."""
    host = register()
    host.seed(run.settings.seed)
    training = host.training_data(host.pretraining_arguments(run.settings))["train_dataloaders"].dataset
    indices = torch.randperm(len(training), generator=torch.Generator().manual_seed(0))[:LIDAR_IMAGES]
    views = [torch.stack(list(islice(_views(training, int(index)), LIDAR_VIEWS))) for index in indices]
    with torch.no_grad():
        method = run.method.to(DEVICE)
        outputs = [method(batch.to(DEVICE)).get(name) for batch in views]
    return None if outputs[0] is None else torch.cat(outputs).cpu()


def _views(training: Any, index: int) -> Any:
    while True:
        yield from training[index][1]


def measure_transfer(run: Run, data: Path, linear_overrides: Sequence[str]) -> float:
    """Return the linear accuracy in percent on other images, at the resolution of the pretraining."""
    overrides = (*ONE_DEVICE, *linear_overrides, *other_data(data))
    linear = compose("linear", data.name, "linear", overrides)
    settings = evaluation_settings(linear, run, overrides)
    return linear_accuracy(register(), run, settings, other_data=True)["acc1"]


def ridge_accuracy(train: Tensor, labels: Tensor, val: Tensor, expected: Tensor) -> float:
    """Return the accuracy in percent of a ridge classifier on standardized axes, in closed form.

    Args:
        train, val: Features or embeddings, (N, D) and (M, D).
        labels, expected: Their classes, (N,) and (M,).
    """
    mean, deviation = train.double().mean(0), train.double().std(0).clamp_min(1e-12)
    x, y = ((each.double() - mean) / deviation for each in (train, val))
    targets = F.one_hot(labels.long()).double()
    gram = x.T @ x + RIDGE * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(gram, x.T @ (targets - targets.mean(0)))
    return 100 * float(((y @ weight + targets.mean(0)).argmax(1) == expected).double().mean())


def measure_ridge(run: Run, of: str) -> float:
    """Return the accuracy of a ridge classifier on ``features`` or ``embeddings``; NaN if there are none."""
    train, val = extract_splits(register(), run)
    x, y = getattr(train, of), getattr(val, of)
    return math.nan if x is None else ridge_accuracy(x, train.labels, y, val.labels)


def readout(
    train: Tensor, val: Tensor, train_factors: Mapping[str, np.ndarray], val_factors: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Return for each factor the R2 of a ridge regression from a representation, on new images.

    R2 tells which part of the factor is linear in the representation.

    Args:
        train, val: The representations of the training and validation images, (N, D) and (M, D).
        train_factors, val_factors: Their factors by name, each (N,) and (M,).
    """
    regression = make_pipeline(StandardScaler(), RidgeCV(PENALTIES))
    regression.fit(train.numpy(), np.stack(list(train_factors.values()), axis=1))
    guesses = regression.predict(val.numpy()).reshape(len(val), -1)
    return {
        name: float(r2_score(values, guesses[:, i])) for i, (name, values) in enumerate(val_factors.items())
    }


def measure_factor(run: Run, of: str, factor: str) -> float:
    """Return the R2 of one factor of sprites, read from ``features`` or ``embeddings``; NaN without these."""
    splits = extract_splits(register(), run)
    x, y = (getattr(split, of) for split in splits)
    if x is None:
        return math.nan
    folders = (Path(run.settings.data[f"{split}_path"]) for split in ("train", "val"))
    known = (read_split(folder.parent, folder.name, len(FACTORS))[1] for folder in folders)
    return readout(x, y, *({factor: each[factor]} for each in known))[factor]


def measure_lidar_of_embeddings(run: Run) -> float:
    """Return the LiDAR of the embeddings; NaN if there are none."""
    embeddings = _outputs_of_views(run, "z")
    return math.nan if embeddings is None else float(lidar(embeddings, LIDAR_VIEWS))


def measure_rankme_of_embeddings(run: Run) -> float:
    """Return RankMe of the training images' embeddings; NaN if there are none."""
    embeddings = extract_splits(register(), run)[0].embeddings
    return math.nan if embeddings is None else float(rankme(embeddings))


Measure = Callable[[Run, Path, Sequence[str]], float]


def _measure_of_factor(of: str, factor: str) -> Measure:
    return lambda run, *_: measure_factor(run, of, factor)


#: For each key of the result, a function of the run, the folder of other data and the probe's overrides.
MEASURES: dict[str, Measure] = {
    "lidar": lambda run, *_: float(lidar(features_of_views(run), LIDAR_VIEWS)),
    "z_lidar": lambda run, *_: measure_lidar_of_embeddings(run),
    "z_rankme": lambda run, *_: measure_rankme_of_embeddings(run),
    "transfer_acc1": measure_transfer,
    "ridge_acc1": lambda run, *_: measure_ridge(run, "features"),
    "z_ridge_acc1": lambda run, *_: measure_ridge(run, "embeddings"),
    **{f"r2_{name}": _measure_of_factor("features", name) for name in FACTORS},
    **{f"z_r2_{name}": _measure_of_factor("embeddings", name) for name in FACTORS},
    "mst_dimension": lambda run, *_: float(mst_dimension(extract_splits(register(), run)[1].features)),
}


def measure(
    checkpoint: Path, data: Path, linear_overrides: Sequence[str], names: Sequence[str]
) -> dict[str, float]:
    """Return the named measures of a finished run."""
    run = register().read_run(checkpoint)
    return {name: MEASURES[name](run, data, linear_overrides) for name in names}
