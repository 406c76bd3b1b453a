"""What of solo-learn 1.0.2 and its Lightning does not run as it is with today's torch, mended."""

from __future__ import annotations

import functools
from typing import Any

from omegaconf import DictConfig
from torch import Tensor, nn


class Schedules:
    """Gives a module of solo-learn 1.0.2 the optimizers and schedules of the current solo-learn's configs."""

    settings: DictConfig

    def configure_optimizers(self) -> Any:
        """The module's own, with a warm-up that counts steps unless ``scheduler.interval`` says epochs."""
        module: Any = self
        configured = super().configure_optimizers()  # type: ignore[misc]
        wanted = self.settings.scheduler
        if wanted.name != "warmup_cosine":
            return configured
        (optimizer,), (old,) = configured
        steps = module.trainer.estimated_stepping_batches / module.max_epochs
        interval = wanted.get("interval", "step")
        unit = steps if interval == "step" else 1
        warmup = wanted.get("warmup_epochs", 10)
        start = wanted.get("warmup_start_lr", 3e-5) if warmup > 0 else module.lr
        new = type(old)(
            optimizer,
            warmup_epochs=warmup * unit,
            max_epochs=module.max_epochs * unit,
            warmup_start_lr=start,
            eta_min=wanted.get("min_lr", 0.0),
        )
        if isinstance(old.get_lr, functools.partial):  # a predictor's constant learning rate
            new.get_lr = functools.partial(old.get_lr.func, **{**old.get_lr.keywords, "get_lr": new.get_lr})
        return [optimizer], [{"scheduler": new, "interval": interval, "frequency": 1}]

    def lr_scheduler_step(self, scheduler: Any, optimizer_idx: int, metric: Any) -> None:
        """Lightning 1.6 takes torch's own schedulers for foreign from torch 2 on; this is its way out."""
        scheduler.step() if metric is None else scheduler.step(metric)


class ProbeOptimizers(Schedules):
    """Gives 1.0.2's linear evaluation the options of LARS, which it leaves out."""

    def configure_optimizers(self) -> Any:
        """The optimizer of the config for the classifier."""
        module: Any = self
        configured = super().configure_optimizers()
        if self.settings.optimizer.name != "lars":
            return configured
        optimizers = configured[0] if isinstance(configured, tuple) else [configured]
        optimizers[0].eta = module.extra_args["eta_lars"]
        optimizers[0].clip = module.extra_args["grad_clip_lars"]
        return configured


class TrainersClipping:
    """Keeps the trainer's clipping of gradients apart from DINO's, which took its name in Lightning 1.6."""

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        optimizer_idx: int,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Lightning's own."""
        from solo.methods.base import pl

        pl.LightningModule.clip_gradients(self, optimizer, gradient_clip_val, gradient_clip_algorithm)


class WithFeatures(nn.Module):
    """A backbone with the outputs of a method."""

    def __init__(self, backbone: nn.Module, device: str) -> None:
        super().__init__()
        self.backbone, self.device = backbone, device

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The features of images (B, C, H, W), by the name that solo-learn gives them."""
        return {"feats": self.backbone(images)}
