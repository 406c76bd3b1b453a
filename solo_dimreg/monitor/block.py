"""The ``monitor:`` block of a config: measure the dimensionality of the representation during training.

    monitor:
      every_n_epochs: 1
      every_n_steps: null  # or optimizer steps, instead of epochs unless both are given
      on: train            # or val
      max_samples: 1024
      metrics: [effective_rank, lid, matrix_entropy, mutual_information, off_diagonal_correlation,
                mean_share, alignment]
      alarm: {metric: effective_rank, drawdown: 0.8, patience: 3, action: warn}   # or stop; none by default

``monitor: null``, ``monitor: false`` and ``enabled: false`` in the block switch it off. Metrics are also
measured when the training ends, for whatever reason.

The monitor reads the features and embeddings that the training or the validation computes anyway, those of
the last images, and needs no second forward pass. It draws no random numbers and changes nothing. A training
is therefore the same, to the bit, with and without it.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from solo_dimreg.config.blocks import PAIR_METRICS, VIEW_METRICS, MonitorSettings
from solo_dimreg.distributed import all_gather, rank
from solo_dimreg.errors import CollapseError, ConfigError
from solo_dimreg.monitor.alarm import Alarm, describe, warn
from solo_dimreg.monitor.buffer import Window, measure
from solo_dimreg.monitor.named_modules import Tap
from solo_dimreg.monitor.writers import (
    checkpoints_of,
    draw_history,
    folder_of,
    harmless,
    log_spectra,
    log_values,
    validates,
    wandb_logger,
    write_csv,
)
from solo_dimreg.solo_learn.stopping import stop

NAME = "dimensionality"
# The pause between two plots, in multiples of the time of drawing one: at most 1 % of the training.
PLOT_PAUSE = 100


class DimensionalityMonitor:
    """A Lightning callback that logs metrics and updates ``dimensionality.csv`` and ``.png``.

    :func:`make_monitor` joins it to Lightning's ``Callback``.

    Args:
        settings: The ``monitor:`` block.
        backbone: The module whose outputs are the features.
        projector: The module whose outputs are the embeddings, or None.
    """

    def __init__(self, settings: MonitorSettings, backbone: nn.Module, projector: nn.Module | None) -> None:
        super().__init__()
        self.settings, self.backbone, self.projector = settings, backbone, projector
        self.options = {"": "features", "z_": "embeddings"}  # the names of the modules in errors
        self.name = NAME  # the name of its files and the prefix of the logged names
        self.windows: dict[str, Window] = {}
        self.taps: list[Tap] = []
        self.folder: Path | None = None
        self._begin()

    def _begin(self) -> None:
        """Reset the state for a new training."""
        self.history: list[dict[str, float]] = []
        wanted = self.settings.alarm
        self.alarm = Alarm(wanted.drawdown, wanted.patience) if wanted else None
        self.logged: dict[str, float] = {}  # for other callbacks, at the end of the epoch
        self.unmeasured: tuple[int, int] | None = None  # epoch and step of the newest rows in the windows
        self.steps_before = 0
        self.next_plot = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the metrics so far and the alarm's state, for the checkpoint."""
        alarm = {} if self.alarm is None else {"alarm": self.alarm.state_dict()}
        return {"history": self.history, **alarm}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the metrics and the alarm's state from a checkpoint."""
        self.history = state_dict["history"]
        if self.alarm is not None and "alarm" in state_dict:
            self.alarm.load_state_dict(state_dict["alarm"])

    def setup(self, trainer: Any, module: Any, stage: str | None = None) -> None:
        """Forget an earlier training, unless this one continues it; a checkpoint is loaded afterwards."""
        if stage == "fit" and not trainer.global_step:
            self._begin()

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        """Hook the modules before their first call, which would compile them."""
        self._close()
        metrics = set(self.settings.metrics)
        pairs = self.settings.on == "train" and not VIEW_METRICS.isdisjoint(metrics)
        for prefix, part in (("", self.backbone), ("z_", self.projector)):
            if part is not None:
                self.windows[prefix] = window = Window(self.settings.max_samples, 2 if pairs else 1)
                self.taps.append(Tap(self.options[prefix], part, window.see))

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Refuse settings that this training cannot measure."""
        if self.settings.on == "val" and not validates(trainer):
            raise ConfigError("monitor.on: 'val' needs validation images: set data.val_path, or use train.")
        if self.projector is None and self.settings.alarm:
            metric = self.settings.alarm.metric
            if metric.startswith("z_") or metric in PAIR_METRICS:
                raise ConfigError(
                    f"monitor.alarm.metric: there is no projector, so no {metric!r}; use 'effective_rank'."
                )
        self.folder = folder_of(trainer)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Measure if the end of the training was not foreseen, and draw the last plot."""
        if self.unmeasured is not None:
            self._measure(trainer, module, *self.unmeasured)
        if rank() == 0:
            self._plot()
            if self.alarm is not None and self.alarm.count < self.alarm.patience:
                self.alarm.forget()
        self._close()

    def on_fit_end(self, trainer: Any, module: Any) -> None:
        """Remove the hooks, also if there was nothing left to train."""
        self._close()

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        """Remove the hooks."""
        self._close()

    def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
        """Look at the first crop, and at the second if metrics of two views are wanted."""
        self.steps_before = trainer.global_step
        # At each step, because anything may stop the training after it.
        self._look(self.settings.on == "train")

    def on_before_backward(self, trainer: Any, module: Any, *_: Any) -> None:
        """Stop looking: activation checkpointing calls the module again on the same images."""
        self._look(False)

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Measure after the last batch of an epoch or of the training, and every few steps."""
        self._look(False)  # a validation that follows is not the training
        if self.settings.on != "train" or not self.windows:
            return
        epoch, step = trainer.current_epoch, trainer.global_step
        self.unmeasured = epoch, step
        # Lightning does not mark the last batch of an epoch that limit_train_batches cuts short.
        last = trainer.is_last_batch or batch_idx + 1 >= trainer.num_training_batches
        if last:
            for window in self.windows.values():
                window.most = batch_idx + 1
        ends = 0 < trainer.max_steps <= step or (last and epoch + 1 == trainer.max_epochs)
        whole = last and self._divides("every_n_epochs", epoch, epoch + 1)
        # Measure before the epoch's end, so that the checkpoint saved there includes this epoch.
        if ends or whole or self._divides("every_n_steps", self.steps_before, step):
            self._measure(trainer, module, epoch, step)

    def on_train_epoch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        """Give the metrics of the training to other callbacks."""
        if self.settings.on == "train":
            self._log(module)

    def on_validation_epoch_start(self, trainer: Any, module: Any) -> None:
        """Forget the images of an earlier validation, which another state of the network saw."""
        if self.settings.on == "val":
            for window in self.windows.values():
                window.steps.clear()

    def on_validation_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
        """Look at the images."""
        self._look(self.settings.on == "val" and not trainer.sanity_checking)

    def on_validation_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        """Run the projector if the validation did not."""
        embeddings = self.windows.get("z_")
        if embeddings is not None and embeddings.wanted:  # validation has no use for the projector
            with torch.no_grad():
                rows = self.windows[""].steps[-1][0]
                weight = next(self.projector.parameters(), rows)  # type: ignore[union-attr]
                self.projector(rows.to(weight.dtype))  # type: ignore[misc]

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        """Measure if a measurement is due in this validation.

        Otherwise the rows are kept, because this validation may be the last one.
        """
        self._look(False)
        if self.settings.on != "val" or trainer.sanity_checking or not self.windows:
            return
        epoch, step = trainer.current_epoch, trainer.global_step
        self.unmeasured = epoch, step
        before = self.history[-1] if self.history else {"epoch": -1, "step": 0}
        every = self.settings.every_n_epochs
        # If the due epoch has no validation, the next epoch with one measures.
        whole = every is not None and (epoch + 1) % every == 0
        late = self._divides("every_n_epochs", int(before["epoch"]) + 1, epoch + 1)
        due = whole or late or self._divides("every_n_steps", int(before["step"]), step)
        if due or epoch + 1 == trainer.max_epochs:
            self._measure(trainer, module, epoch, step)
            self._log(module)

    def _divides(self, setting: str, before: int, after: int) -> bool:
        """Return whether a multiple of a setting lies above ``before`` and not above ``after``."""
        every = getattr(self.settings, setting)
        return every is not None and after // every > before // every

    def _close(self) -> None:
        for tap in self.taps:
            tap.remove()
        self.taps, self.windows, self.unmeasured = [], {}, None

    def _look(self, open_: bool) -> None:
        for window in self.windows.values():
            window.look(open_)

    def _measure(self, trainer: Any, module: Any, epoch: int, step: int) -> None:
        self.unmeasured = None
        taken = {prefix: window.rows() for prefix, window in self.windows.items()}
        features, embeddings = taken[""], taken.get("z_", [])
        if not features:
            return
        figures = measure(self.settings.metrics, features, embeddings)
        self.logged = {f"{self.name}/{name}": value for name, value in figures.items()}
        log_values(trainer, self.logged, epoch, step)
        log_spectra(trainer, self.name, features[0], embeddings[0] if embeddings else None)
        self.history = [row for row in self.history if row["step"] < step]
        self.history.append({"epoch": epoch, "step": step, **figures})
        if rank() == 0:
            self._write()
            started = time.monotonic()
            if started >= self.next_plot:
                self._plot()
                self.next_plot = started + PLOT_PAUSE * (time.monotonic() - started)
        if self.alarm is not None and self.settings.alarm is not None:
            metric = self.settings.alarm.metric
            if metric not in figures and len(self.history) == 1 and rank() == 0:
                warnings.warn(
                    f"monitor.alarm: the steps have no {metric}, so it never triggers.", stacklevel=2
                )
            value = features[0].new_tensor([figures.get(metric, torch.nan)])
            # Use the value of the first process, whose state is saved: all of them stop, or none.
            self._sound(self.alarm, metric, float(all_gather(value)[0]), trainer, module)

    def _sound(self, alarm: Alarm, metric: str, value: float, trainer: Any, module: Any) -> None:
        sounds = alarm.look(value, int(self.history[-1]["epoch"]), int(self.history[-1]["step"]))
        if rank() == 0:
            with harmless():
                alarm.keep_good(checkpoints_of(trainer, self.folder))
        if not sounds:
            return
        alarm.named = alarm.good
        message = describe(alarm, type(module).__name__, metric, value)
        if self.settings.alarm is not None and self.settings.alarm.action == "warn":
            return warn(message, wandb_logger(trainer))
        if rank() == 0:
            self._plot()
        self._stop(trainer, module, message)

    def _stop(self, trainer: Any, module: Any, message: str) -> None:
        stop(module, CollapseError(message))

    def _log(self, module: Any) -> None:
        # The loggers have the values already; Lightning would log one look per epoch, or the mean.
        if self.logged:
            module.log_dict(self.logged, on_step=False, on_epoch=True, batch_size=1, logger=False)
            self.logged = {}

    def _write(self) -> None:
        if self.folder is not None:
            with harmless():
                write_csv(self.history, self.folder / f"{self.name}.csv")

    def _plot(self) -> None:
        from solo_dimreg.plots import save_png

        if self.folder is not None and self.history:
            with harmless():
                save_png(draw_history(self.history), self.folder / f"{self.name}.png")


def make_monitor(
    callback: type, settings: MonitorSettings, backbone: nn.Module, projector: nn.Module | None
) -> Any:
    """Return the monitor as a ``callback``, the ``Callback`` of the Lightning in use."""
    # Checkpoints store its state under this name.
    kind = type("DimensionalityMonitor", (DimensionalityMonitor, callback), {"__module__": __name__})
    return kind(settings, backbone, projector)
