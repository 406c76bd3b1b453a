"""Watches the dimensionality of the representation while it trains: the ``monitor:`` block of a config.

    monitor:
      every_n_epochs: 1
      on: train            # or val
      max_samples: 1024
      metrics: [effective_rank, lid, matrix_entropy, mutual_information, off_diagonal_correlation,
                mean_share, alignment]
      alarm: {metric: effective_rank, drawdown: 0.8, patience: 3, action: warn}   # or stop; none by default

The features (and embeddings) are those that the training or the validation computes anyway: of the last
images of an epoch, without a second forward pass. Nothing random is drawn and nothing is changed, so the
training is the same, to the bit, with and without.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from solo_dimreg.blocks.alarm import Alarm, alarm_settings, describe, warn
from solo_dimreg.blocks.monitor_files import (
    checkpoints_of,
    draw_history,
    folder_of,
    harmless,
    log_spectra,
    wandb_logger,
    write_csv,
)
from solo_dimreg.blocks.monitor_window import PAIR_METRICS, VIEW_METRICS, Window, measure
from solo_dimreg.blocks.regularizers import check_keys
from solo_dimreg.blocks.stopping import stop
from solo_dimreg.distributed import all_gather, rank
from solo_dimreg.errors import CollapseError, ConfigError, unknown
from solo_dimreg.plugins import registered

PLACES = ("train", "val")
DEFAULTS: dict[str, Any] = {
    "every_n_epochs": 1,
    "on": "train",
    "max_samples": 1024,
    "metrics": [
        "effective_rank",
        "lid",
        "matrix_entropy",
        "mutual_information",
        "off_diagonal_correlation",
        "mean_share",
        "alignment",
    ],
    "alarm": None,
}
NAME = "dimensionality"
# The plot is drawn anew when this many times the time that it took has passed: at most a hundredth of all.
PLOT_PAUSE = 100


def monitor_settings(block: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A ``monitor:`` block with the defaults filled in; None without one.

    Raises:
        ConfigError: an unknown key or metric, or a value out of range.
    """
    if block is None:
        return None
    if not isinstance(block, Mapping):
        raise ConfigError(f"monitor: {block!r} is not a mapping of settings, {{every_n_epochs: 1}}.")
    # YAML 1.1 reads the key on as true, and JSON writes that as a string.
    block = {("on" if key in (True, "true") else key): value for key, value in block.items()}
    check_keys("monitor", block, set(DEFAULTS))
    settings = {**DEFAULTS, **block}
    for key, least in (("every_n_epochs", 1), ("max_samples", 3)):
        value = settings[key]
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(
                f"monitor.{key}: {value!r} is not allowed; it must be a whole number >= {least}."
            )
    if settings["on"] not in PLACES:
        raise ConfigError(f"monitor.on: {unknown('place', str(settings['on']), PLACES)}")
    metrics, known = settings["metrics"], {*registered("metrics"), *PAIR_METRICS, *VIEW_METRICS}
    if isinstance(metrics, str) or not isinstance(metrics, list | tuple) or not metrics:
        raise ConfigError(
            f"monitor.metrics: {metrics!r} is not allowed; it must be a list of {', '.join(sorted(known))}."
        )
    for metric in metrics:
        if metric not in known:
            raise ConfigError(f"monitor.metrics: {unknown('metric', str(metric), known)}")
        if metric in VIEW_METRICS and settings["on"] == "val" and "metrics" in block:
            raise ConfigError(f"monitor.metrics: {metric!r} needs two views, which on: train has alone.")
    settings["alarm"] = alarm_settings(settings["alarm"], sorted(known))
    if settings["alarm"] is not None:
        metric = settings["alarm"]["metric"]
        name = metric.removeprefix("z_")
        if name in VIEW_METRICS and settings["on"] == "val":
            raise ConfigError(f"monitor.alarm.metric: {metric!r} needs two views, which on: train has alone.")
        if name in PAIR_METRICS and name != metric:
            raise ConfigError(f"monitor.alarm.metric: {metric!r} is of both already; leave out the z_.")
        settings["metrics"] = [*dict.fromkeys([*metrics, name])]
    return settings


class DimensionalityMonitor:
    """Logs the figures of an epoch and keeps ``dimensionality.csv`` and ``.png`` up to date.

    Joined to Lightning's ``Callback`` by :func:`make_monitor`.

    Args:
        settings: From :func:`monitor_settings`.
        backbone: The module whose outputs are the features.
        projector: That whose outputs are the embeddings, where there is one.
    """

    def __init__(self, settings: Mapping[str, Any], backbone: nn.Module, projector: nn.Module | None) -> None:
        super().__init__()
        self.settings, self.backbone, self.projector = settings, backbone, projector
        self.history: list[dict[str, float]] = []
        self.windows: dict[str, Window] = {}
        self.folder: Path | None = None
        self.next_plot = 0.0
        wanted = settings["alarm"]
        self.alarm = Alarm(wanted["drawdown"], wanted["patience"]) if wanted else None
        self.logged: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """The figures of the epochs so far, and the alarm's, for the checkpoint."""
        alarm = {} if self.alarm is None else {"alarm": self.alarm.state_dict()}
        return {"history": self.history, **alarm}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with the figures of a checkpoint."""
        self.history = state_dict["history"]
        if self.alarm is not None and "alarm" in state_dict:
            self.alarm.load_state_dict(state_dict["alarm"])

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Begins to look at the modules' outputs."""
        if self.settings["on"] == "val" and not sum(trainer.num_val_batches):
            raise ConfigError("monitor.on: 'val' needs validation images: set data.val_path, or use train.")
        if self.projector is None and self.alarm:
            metric = self.settings["alarm"]["metric"]
            if metric.startswith("z_") or metric in PAIR_METRICS:
                raise ConfigError(
                    f"monitor.alarm.metric: there is no projector, so no {metric!r}; use 'effective_rank'."
                )
        self.folder = folder_of(trainer)
        pairs = self.settings["on"] == "train" and not VIEW_METRICS.keys().isdisjoint(
            self.settings["metrics"]
        )
        size, views = self.settings["max_samples"], 2 if pairs else 1
        self.windows = {"": Window(self.backbone, size, views)}
        if self.projector is not None:
            self.windows["z_"] = Window(self.projector, size, views)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Draws the last plot."""
        if rank() == 0:
            self._plot()
            if self.alarm is not None and self.alarm.count < self.alarm.patience:
                self.alarm.forget()
        self._close()

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        """Leaves the modules as they were."""
        self._close()

    def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
        """Looks at the first of its crops, and at the second where figures of two views are wanted."""
        if self.settings["on"] == "train" and self._wanted(trainer):
            self._look(True)

    def on_before_backward(self, trainer: Any, module: Any, *_: Any) -> None:
        """Looks away: a checkpointed module is called again, on the same images."""
        self._look(False)

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Measures after the last batch of an epoch."""
        self._look(False)  # a validation that follows is not the training
        # Of an epoch that limit_train_batches cuts short, Lightning does not say that it is the last.
        last = trainer.is_last_batch or batch_idx + 1 >= trainer.num_training_batches
        # Not at the end of the epoch, when the checkpoint is saved: the state in it includes this epoch.
        if self.settings["on"] == "train" and last and self._wanted(trainer):
            self._measure(trainer, module)

    def on_train_epoch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        """Logs the figures of the training."""
        # Lightning 1.6 would average over the epochs what is logged after a batch that is not the first.
        self._log(module)

    def on_validation_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
        """Looks at the images."""
        if self.settings["on"] == "val" and not trainer.sanity_checking and self._wanted(trainer):
            self._look(True)

    def on_validation_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        """Runs the projector, where the validation did not."""
        embeddings = self.windows.get("z_")
        if embeddings is not None and embeddings.wanted:  # validation has no use for the projector
            with torch.no_grad():
                rows = self.windows[""].steps[-1][0]
                weight = next(self.projector.parameters(), rows)  # type: ignore[union-attr]
                self.projector(rows.to(weight.dtype))  # type: ignore[misc]

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        """Measures."""
        if self.settings["on"] == "val" and not trainer.sanity_checking and self._wanted(trainer):
            self._measure(trainer, module)

    def _wanted(self, trainer: Any) -> bool:
        epoch = trainer.current_epoch + 1
        return bool(self.windows) and (
            epoch % self.settings["every_n_epochs"] == 0 or epoch == trainer.max_epochs
        )

    def _close(self) -> None:
        for window in self.windows.values():
            window.remove()
        self.windows = {}

    def _look(self, open_: bool) -> None:
        for window in self.windows.values():
            window.look(open_)

    def _measure(self, trainer: Any, module: Any) -> None:
        taken = {prefix: window.take() for prefix, window in self.windows.items()}
        features, embeddings = taken[""], taken.get("z_", [])
        if not features:
            return
        figures = measure(self.settings["metrics"], features, embeddings)
        self.logged = {f"dimensionality/{name}": value for name, value in figures.items()}
        if self.settings["on"] == "val":
            self._log(module)
        log_spectra(trainer, features[0], embeddings[0] if embeddings else None)
        epoch = trainer.current_epoch
        self.history = [row for row in self.history if row["epoch"] < epoch]
        self.history.append({"epoch": epoch, "step": trainer.global_step, **figures})
        if rank() == 0:
            self._write()
            started = time.monotonic()
            if started >= self.next_plot:
                self._plot()
                self.next_plot = started + PLOT_PAUSE * (time.monotonic() - started)
        if self.alarm is not None:
            metric = self.settings["alarm"]["metric"]
            if metric not in figures and len(self.history) == 1 and rank() == 0:
                warnings.warn(f"monitor.alarm: the steps have no {metric}, so it never sounds.", stacklevel=2)
            value = features[0].new_tensor([figures.get(metric, torch.nan)])
            # That of the first process, whose state is saved: all of them stop, or none.
            self._sound(self.alarm, metric, float(all_gather(value)[0]), trainer, module)

    def _sound(self, alarm: Alarm, metric: str, value: float, trainer: Any, module: Any) -> None:
        sounds = alarm.look(value, trainer.current_epoch)
        if rank() == 0:
            with harmless():
                alarm.keep_good(checkpoints_of(trainer, self.folder))
        if not sounds:
            return
        alarm.named = alarm.good
        message = describe(alarm, type(module).__name__, metric, value)
        if self.settings["alarm"]["action"] == "warn":
            return warn(message, wandb_logger(trainer))
        if rank() == 0:
            self._plot()
        stop(module, CollapseError(message))

    def _log(self, module: Any) -> None:
        if self.logged:
            module.log_dict(self.logged, on_step=False, on_epoch=True, batch_size=1)
            self.logged = {}

    def _write(self) -> None:
        if self.folder is not None:
            with harmless():
                write_csv(self.history, self.folder / f"{NAME}.csv")

    def _plot(self) -> None:
        from solo_dimreg.plots import save_png

        if self.folder is not None and self.history:
            with harmless():
                save_png(draw_history(self.history), self.folder / f"{NAME}.png")


def make_monitor(
    callback: type, settings: Mapping[str, Any], backbone: nn.Module, projector: nn.Module | None
) -> Any:
    """A Lightning callback; ``callback`` is the ``Callback`` of the Lightning in use, the rest as above."""
    # Under this name its state stands in checkpoints.
    kind = type("DimensionalityMonitor", (DimensionalityMonitor, callback), {"__module__": __name__})
    return kind(settings, backbone, projector)
