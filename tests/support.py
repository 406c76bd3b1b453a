"""Small configs and data with which methods really train, for both solo-learns."""

from __future__ import annotations

import copy
import os
import subprocess
import time
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from solo_dimreg.config.values import base_name
from solo_dimreg.solo_learn import Host, register
from solo_dimreg.solo_learn.registration import generation

slow = pytest.mark.slow
BATCH = 16
AUGMENTATION = {
    "rrc": {"enabled": True, "crop_min_scale": 0.4, "crop_max_scale": 1.0},
    "color_jitter": {"prob": 0.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0},
    "grayscale": {"prob": 0.0},
    "gaussian_blur": {"prob": 0.0},
    "solarization": {"prob": 0.0},
    "equalization": {"prob": 0.0},
    "horizontal_flip": {"prob": 0.0},
    "crop_size": 32,
    "num_crops": 2,
}
PROJECTOR = {"proj_hidden_dim": 32, "proj_output_dim": 16}
PREDICTOR = {**PROJECTOR, "pred_hidden_dim": 16}
QUEUE = {"queue_size": 64}
# What each method of solo-learn needs to be told; the rest has defaults.
METHOD_KWARGS: dict[str, dict[str, Any]] = {
    "all4one": {**PREDICTOR, **QUEUE, "temperature": 0.2},
    "barlow_twins": PROJECTOR,
    "byol": PREDICTOR,
    "deepclusterv2": {**PROJECTOR, "num_prototypes": [8, 8, 8]},
    "dino": {**PROJECTOR, "num_prototypes": 32, "warmup_teacher_temperature_epochs": 0},
    "mae": {"decoder_embed_dim": 32, "decoder_depth": 1, "decoder_num_heads": 2},
    "mocov2plus": {**PROJECTOR, **QUEUE, "temperature": 0.2},
    "mocov3": {**PREDICTOR, "temperature": 0.2},
    "nnbyol": {**PREDICTOR, **QUEUE},
    "nnclr": {**PREDICTOR, **QUEUE, "temperature": 0.2},
    "nnsiam": {**PREDICTOR, **QUEUE},
    "ressl": {**PROJECTOR, **QUEUE, "temperature_q": 0.1, "temperature_k": 0.04},
    "simclr": {**PROJECTOR, "temperature": 0.2},
    "simsiam": PREDICTOR,
    "supcon": {**PROJECTOR, "temperature": 0.2},
    "swav": {**PROJECTOR, **QUEUE, "temperature": 0.1, "num_prototypes": 16},
    "vibcreg": PROJECTOR,
    "vicreg": PROJECTOR,
    "wmse": {**PROJECTOR, "whitening_size": 32},
}


METHODS = {
    "current": list(METHOD_KWARGS),
    "published": [m for m in METHOD_KWARGS if m not in ("all4one", "mae", "mocov3", "supcon", "vibcreg")],
}[generation() or "current"]
PROJECTED = {"wmse": BATCH // 2}


def most_slow(values: Iterable[Any], keep: Container[Any] | Callable[[Any], bool]) -> list[Any]:
    """The values of a matrix of cases, all but those to keep marked as slow."""
    kept = keep if callable(keep) else keep.__contains__
    return [
        value if kept(value) else pytest.param(*(value if isinstance(value, tuple) else [value]), marks=slow)
        for value in values
    ]


def config(method: str, train_path: str, **changes: Any) -> DictConfig:
    """A complete pretraining config on image folders; ``changes`` replace or add top-level keys."""
    base = base_name(method)
    content: dict[str, Any] = {
        "name": f"{method}-test",
        "method": method,
        "backbone": {"name": "resnet18"},
        "method_kwargs": copy.deepcopy(METHOD_KWARGS.get(base, {})),
        "momentum": {"base_tau": 0.9, "final_tau": 1.0},
        "data": {"dataset": "custom", "train_path": train_path, "val_path": None, "num_workers": 0},
        "augmentations": [copy.deepcopy(AUGMENTATION)],
        "optimizer": {
            "name": "sgd",
            "batch_size": BATCH,
            "lr": 0.1,
            "classifier_lr": 0.1,
            "weight_decay": 0.0,
        },
        "scheduler": {"name": "warmup_cosine", "warmup_epochs": 0},
        "checkpoint": {"enabled": False},
        "auto_resume": {"enabled": False},
        "max_epochs": 1,
        "devices": "1",
        "accelerator": "cpu",
        "strategy": "auto",
        "precision": 32,
        "sync_batchnorm": False,
        "seed": 7,
    }
    if base == "mae":
        content["backbone"] = {"name": "vit_tiny", "kwargs": {"patch_size": 16, "img_size": 32}}
    content.update(changes)
    cfg = OmegaConf.create(content)
    OmegaConf.set_struct(cfg, False)
    return cfg


def small(few_digits: Path, name: str = "simclr", **changes: Any) -> DictConfig:
    """A config with a network of which many can be trained."""
    settings = config(name, str(few_digits / "train"), **changes)
    if name != "mae":
        settings.backbone = {"name": "timm/test_resnet"}
    if name == "directclr":
        settings.method_kwargs = {"dim": 48}
    if name == "lejepa":
        settings.method_kwargs = {"proj_hidden_dim": 32, "proj_output_dim": 16}
    if name == "shuffled_dbn":
        settings.method_kwargs = {"proj_hidden_dim": 32, "proj_output_dim": 16, "num_groups": 4}
    if name == "wmse":
        settings.method_kwargs.update(whitening_size=BATCH, proj_output_dim=BATCH // 2)
    return settings


class RandomViews(Dataset):
    """Noise in the format of solo-learn's training data: index, a view of each of the sizes, label."""

    def __init__(self, length: int, sizes: Sequence[int]) -> None:
        generator = torch.Generator().manual_seed(0)
        self.views = [torch.randn(length, 3, size, size, generator=generator) for size in sizes]

    def __len__(self) -> int:
        return len(self.views[0])

    def __getitem__(self, index: int) -> tuple[int, list[Tensor], int]:
        return index, [view[index] for view in self.views], index % 10


def train_steps(host: Host, method: Any, steps: int = 3, sizes: Sequence[int] = (32, 32)) -> dict[str, float]:
    """Trains a method for some steps on noise; returns what it logged."""
    loader = DataLoader(RandomViews(BATCH * steps, sizes), batch_size=BATCH, drop_last=True)
    trainer = host.pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(method, loader)
    assert trainer.global_step == steps
    method.trainer = None  # Lightning 1.6 keeps a weak proxy, which state_dict() would trip over
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def build(settings: DictConfig, host: Host | None = None) -> Any:
    """The method that a config asks for, from a fixed random state."""
    host = host or register()
    arguments = host.pretraining_arguments(settings)
    host.pl.seed_everything(int(settings.seed))
    return host.build_method(arguments)


def build_small(few_digits: Path, name: str, multicrop: bool, **changes: Any) -> Any:
    """A method on a tiny backbone, with small crops if it is to have them."""
    large, small = copy.deepcopy(AUGMENTATION), {**copy.deepcopy(AUGMENTATION), "crop_size": 16}
    settings = config(name, str(few_digits / "train"), **changes)
    settings.augmentations = [large, small] if multicrop else [large]
    if name != "mae":  # which needs solo-learn's ViT
        settings.backbone = {"name": "timm/test_resnet"}
    if name == "wmse":
        settings.method_kwargs.update(whitening_size=BATCH, proj_output_dim=PROJECTED["wmse"])
    return build(settings)


def until(condition: Callable[[], object], run: subprocess.Popen) -> None:
    """Waits until another process has done what the test needs; fails if it ends before, or after 240 s."""
    end = time.monotonic() + 240
    while not condition():
        assert run.poll() is None and time.monotonic() < end
        time.sleep(0.05)  # between looks at what the other process does; nothing is timed


def has_file(folder: Path, ending: str) -> bool:
    """Tells whether a file's name ends so. ``rglob`` would fail where a folder vanishes as it looks."""
    return any(name.endswith(ending) for *_, names in os.walk(folder) for name in names)


def needs_model_checkpoint(lightning: Any) -> None:
    """Skips a test where Lightning 1.6 meets NumPy 2 (``LATEST=1``): its ModelCheckpoint wants ``np.Inf``."""
    if lightning.__version__.startswith("1.") and not hasattr(np, "Inf"):
        pytest.skip(f"the ModelCheckpoint of Lightning {lightning.__version__} wants a NumPy before 2")
