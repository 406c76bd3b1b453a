"""Fixes for the parts of solo-learn 1.0.2 and its Lightning that fail with current versions of torch."""

from __future__ import annotations

import functools
from typing import Any

from omegaconf import DictConfig
from torch import Tensor, nn

from solo_dimreg.solo_learn.mixins import Mixin


class Schedules(Mixin):
    """A mixin that gives solo-learn 1.0.2's modules the optimizers and schedules of current configs."""

    settings: DictConfig

    def configure_optimizers(self) -> Any:
        """Return the module's optimizers; warm-up counts steps unless ``scheduler.interval`` is ``epoch``."""
        configured = super().configure_optimizers()
        wanted = self.settings.scheduler
        if wanted.name != "warmup_cosine":
            return configured
        (optimizer,), (old,) = configured
        steps = self.trainer.estimated_stepping_batches / self.max_epochs
        interval = wanted.get("interval", "step")
        unit = steps if interval == "step" else 1
        warmup = wanted.get("warmup_epochs", 10)
        start = wanted.get("warmup_start_lr", 3e-5) if warmup > 0 else self.lr
        new = type(old)(
            optimizer,
            warmup_epochs=warmup * unit,
            max_epochs=self.max_epochs * unit,
            warmup_start_lr=start,
            eta_min=wanted.get("min_lr", 0.0),
        )
        if isinstance(old.get_lr, functools.partial):  # a predictor's constant learning rate
            new.get_lr = functools.partial(old.get_lr.func, **{**old.get_lr.keywords, "get_lr": new.get_lr})
        return [optimizer], [{"scheduler": new, "interval": interval, "frequency": 1}]

    def lr_scheduler_step(self, scheduler: Any, optimizer_idx: int, metric: Any) -> None:
        """Step torch's own schedulers, which Lightning 1.6 takes for foreign ones from torch 2 on."""
        scheduler.step() if metric is None else scheduler.step(metric)


class ProbeOptimizers(Schedules):
    """A mixin that gives 1.0.2's linear evaluation the options of LARS, which it leaves out."""

    def configure_optimizers(self) -> Any:
        """Return the config's optimizer for the classifier."""
        configured = super().configure_optimizers()
        if self.settings.optimizer.name != "lars":
            return configured
        optimizers = configured[0] if isinstance(configured, tuple) else [configured]
        optimizers[0].eta = self.extra_args["eta_lars"]
        optimizers[0].clip = self.extra_args["grad_clip_lars"]
        return configured


class TrainersClipping(Mixin):
    """A mixin that keeps the trainer's gradient clipping apart from DINO's method of the same name."""

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        optimizer_idx: int,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip gradients as Lightning does."""
        from solo.methods.base import pl

        pl.LightningModule.clip_gradients(self, optimizer, gradient_clip_val, gradient_clip_algorithm)


class WithFeatures(nn.Module):
    """A backbone with the outputs of a method."""

    def __init__(self, backbone: nn.Module, device: str) -> None:
        super().__init__()
        self.backbone, self.device = backbone, device

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the features of images (B, C, H, W) under solo-learn's name for them."""
        return {"feats": self.backbone(images)}
