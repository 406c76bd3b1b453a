"""The monitor: a Lightning callback that measures the dimensionality of the representation during training.

It reads the last features and embeddings that the training or the validation computes anyway; with
``on: fixed`` it passes the same images through the network each time. It draws no random numbers and changes
nothing, so a training is the same, to the bit, with and without it.
"""

from __future__ import annotations

import time
import warnings
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from solo_dimreg.config.blocks import MONITORED, AlarmSettings, MonitorSettings, read_blocks
from solo_dimreg.distributed import all_gather, rank
from solo_dimreg.errors import CollapseError, ConfigError, warn
from solo_dimreg.metrics.registry import FEATURES_AND_EMBEDDINGS, METRICS, VIEWS
from solo_dimreg.monitor import writers
from solo_dimreg.monitor.alarm import NEVER, Alarm, describe, send_alert
from solo_dimreg.monitor.buffer import FeatureBuffer, measure
from solo_dimreg.monitor.lightning import JoinedCallback
from solo_dimreg.monitor.named_modules import OutputRecorder, evaluation_mode, find_module, pooled_rows
from solo_dimreg.monitor.stopping import stop

if TYPE_CHECKING:
    from solo_dimreg.solo_learn.monitoring import MonitorSupport

NAME = "dimensionality"
# The prefix of the names of metrics, for each kind of rows.
PREFIXES = {"": "features", "z_": "embeddings"}
# The pause between two plots, in multiples of the time of drawing one: at most 1 % of the training.
PLOT_PAUSE = 100
# The most images of a look, for each image that the training sees between two looks, which cost 2 % of its
# time; and the fewest with which `on: auto` is `fixed`, since the rank of N images is below N.
SHARE, FEWEST = 0.2, 256


class BlockMonitor(JoinedCallback):
    """The monitor of a ``monitor:`` block.

    Lightning drops a callback of the user's if the module brings one of the same class or of one below it, so
    :class:`DimensionalityMonitor` stands below this class.

    Args:
        features, embeddings: The names of the backbone, and of the projector if there is one.
        support: The training's side of the actions of the alarm and of ``on: fixed``.
    """

    # Whether the projector is known to take the features, and an alarm may end the process.
    from_config = True

    def __init__(
        self,
        settings: MonitorSettings,
        features: str,
        embeddings: str | None,
        support: MonitorSupport | None = None,
    ) -> None:
        self.settings, self.support = settings, support
        self.images: Any = None  # those of `on: fixed`
        self.on = settings.on
        self.alarm_settings: AlarmSettings | None = settings.alarm
        self.names = {"features": features, "embeddings": embeddings}
        self.name = NAME  # the name of its files and the prefix of the logged names
        self.accepted = False  # by a trainer, beside its other monitors
        self.projector: nn.Module | None = None
        self.buffers: dict[str, FeatureBuffer] = {}
        self.recorders: list[OutputRecorder] = []
        self.folder: Path | None = None
        self._begin()

    def _begin(self) -> None:
        self.history: list[dict[str, float]] = []
        wanted = self.alarm_settings
        self.alarm = Alarm(wanted.drawdown, wanted.patience) if wanted else None
        self.logged: dict[str, float] = {}  # for other callbacks, at the end of the epoch
        self.unmeasured: tuple[int, int] | None = None  # epoch and step of the newest rows in the buffers
        self.steps_before = 0
        self.next_plot = 0.0

    @property
    def identity(self) -> dict[str, Any]:
        """Return the settings by which this monitor differs from others in the same trainer."""
        return {**self.names, "on": self.on}

    @property
    def state_key(self) -> str:
        """Return the name of the monitor's state in a checkpoint.

        Lightning refuses equal names as soon as the trainer is made, and does not say what to change. Until
        :meth:`setup` has compared the monitors, which does say it, each one has a name of its own.
        """
        if self.from_config:
            return "DimensionalityMonitor"
        name = f"{type(self).__qualname__}{self.identity!r}"
        return name if self.accepted else f"{name} at {id(self):#x}"

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
        """Take a distinct name among several monitors.

        Also forget an earlier training, unless this one continues it; a checkpoint is loaded afterwards.
        """
        if stage == "fit" and not trainer.global_step:
            self._begin()
        kinds = (each for each in trainer.callbacks if isinstance(each, BlockMonitor))
        others = [each.identity for each in kinds if each is not self]
        if self.from_config:
            return
        if self.identity in others:
            raise ConfigError(
                f"features: two monitors look at {self.names['features']!r} on {self.on!r}; "
                "keep one of them, with the metrics of both."
            )
        self.accepted = True
        differs = [key for key in self.identity if any(each[key] != self.identity[key] for each in others)]
        added = [str(self.identity[key]) for key in differs if self.identity[key] is not None]
        self.name = "-".join([NAME, *added])
        if self.alarm is not None:
            self.alarm.label = f".{self.name}" if added else ""

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        """Find the modules and hook their outputs, before their first call, which would compile them."""
        self._close()
        self.on = self.settings.on
        pairs = self.on in ("auto", "train") and any(
            name in METRICS and METRICS[name].inputs == VIEWS for name in self.settings.metrics
        )
        for prefix, kind in PREFIXES.items():
            if (name := self.names[kind]) is None:
                continue
            part = find_module(kind, module, name)
            self.buffers[prefix] = buffer = FeatureBuffer(self.settings.max_samples, 2 if pairs else 1)
            self.recorders.append(OutputRecorder(f"{kind} ({name})", part, buffer.add))
            if prefix:
                self.projector = part
        for name in self.settings.layers:
            option = "monitor.layers" if self.from_config else "layers"
            # A solo-learn may call the backbone encoder.
            own = str(self.names["features"]) if self.from_config else ""
            part = find_module(option, module, name, own)
            self.buffers[f"{name}/"] = buffer = FeatureBuffer(self.settings.max_samples)
            self.recorders.append(OutputRecorder(f"{option} ({name})", part, buffer.add, pooled_rows))

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Refuse settings that this training cannot measure, and choose the images."""
        if self.on == "val" and not writers.validates(trainer):
            raise ConfigError(
                "monitor.on: 'val' needs validation images: set data.val_path, or use train."
                if self.from_config
                else "on: 'val' needs a validation loader: pass one to trainer.fit, or use 'train'."
            )
        wanted = self.alarm_settings
        if self.projector is None and wanted is not None:
            for name, key in wanted.named.items():
                if name.startswith("z_") or (
                    name in METRICS and METRICS[name].inputs == FEATURES_AND_EMBEDDINGS
                ):
                    other = "use 'effective_rank'" if key == "metric" else "leave it out"
                    raise ConfigError(f"monitor.alarm.{key}: there is no projector, so no {name!r}; {other}.")
        self.folder = writers.folder_of(trainer)
        action = wanted.action if wanted else None
        own = any(type(callback).__name__ == "Checkpointer" for callback in trainer.callbacks)
        if action == "rollback" and not (own or trainer.checkpoint_callbacks):
            raise ConfigError(
                "monitor.alarm.action: 'rollback' needs checkpoints: set checkpoint.enabled: True."
            )
        first = self.alarm.remedy_from if self.alarm else None
        if self.support is not None and action == "remedy" and first is not None:
            self.support.add_remedy(trainer, module, first)  # the run that is resumed had added it
        if self.on in ("auto", "fixed"):
            self.images = self._plain_images(trainer, module)
            self.on = "train" if self.images is None else "fixed"

    def _plain_images(self, trainer: Any, module: Any) -> Any:
        """Return the images of ``on: fixed``; return None if the last batches have to do, or cost less."""
        if self.support is None:
            return None
        size = self.settings.max_samples
        if self.on == "auto":
            every = (
                (self.settings.every_n_epochs, trainer.num_training_batches),
                (self.settings.every_n_steps, trainer.accumulate_grad_batches),
            )
            batches = min(count * length for count, length in every if count is not None)
            size = int(min(size, SHARE * batches * module.batch_size * trainer.world_size))
            if size < min(FEWEST, self.settings.max_samples):
                return None
        found = self.support.plain_images(trainer, module, size)
        if isinstance(found, str):
            warn(f"monitor.on: {found}, so it looks at the last batches of the training.")
        return None if isinstance(found, str) else found

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Measure if the end of the training was not foreseen, and draw the last plot."""
        if self.unmeasured is not None:
            self._measure(trainer, module, *self.unmeasured, over=True)
        if rank() == 0:
            self._plot()
            if self.alarm is not None and self.alarm.count < self.alarm.patience:
                self.alarm.forget()
        self._warn_of_missing_outputs()
        self._close()

    def _warn_of_missing_outputs(self) -> None:
        if self.on == "fixed":
            return
        step = {"train": "training", "val": "validation"}[self.on]
        for prefix, buffer in self.buffers.items():
            kind = PREFIXES.get(prefix, "layer")
            name, said = self.names.get(kind) or prefix.removesuffix("/"), ""
            if not buffer.opened:
                said = "the training ended before a validation, so there are no metrics."
            elif not buffer.steps:
                said = f"{step} never called {kind}={name!r}, so there are no metrics of it."
            if said:
                return warnings.warn(f"monitor: {said}", stacklevel=2)

    def on_fit_end(self, trainer: Any, module: Any) -> None:
        """Remove the hooks, also if there was nothing left to train."""
        self._close()

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        """Remove the hooks."""
        self._close()

    def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
        """Look at the first crop, and at the second if metrics of two views are wanted."""
        self.steps_before = trainer.global_step
        if self.on == "train":  # at each step, because anything may stop the training after it
            self._open_step()

    def on_before_backward(self, trainer: Any, module: Any, *_: Any) -> None:
        """Stop looking: activation checkpointing calls the module again on the same images."""
        self._close_step()

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Measure after the last batch of an epoch or of the training, and every few steps."""
        self._close_step()  # a validation that follows is not the training
        if self.on == "val" or not self.buffers:
            return
        epoch, step = trainer.current_epoch, trainer.global_step
        self.unmeasured = epoch, step
        # Lightning does not mark the last batch of an epoch that limit_train_batches cuts short.
        last = trainer.is_last_batch or batch_idx + 1 >= trainer.num_training_batches
        if last and self.on == "train":
            for buffer in self.buffers.values():
                buffer.steps_of_epoch = batch_idx + 1
        ends = 0 < trainer.max_steps <= step or (last and epoch + 1 == trainer.max_epochs)
        whole = last and _is_due(self.settings.every_n_epochs, epoch, epoch + 1)
        # Measure before the epoch's end, so that the checkpoint saved there includes this epoch.
        if ends or whole or _is_due(self.settings.every_n_steps, self.steps_before, step):
            self._measure(trainer, module, epoch, step, over=ends)

    def on_train_epoch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        """Give the metrics of the training to other callbacks."""
        if self.on != "val":
            self._log(module)

    def on_validation_epoch_start(self, trainer: Any, module: Any) -> None:
        """Forget the images of an earlier validation, which another state of the network saw."""
        if self.on == "val":
            for buffer in self.buffers.values():
                buffer.steps.clear()

    def on_validation_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
        """Look at the images."""
        if self.on == "val" and not trainer.sanity_checking:
            self._open_step()

    def on_validation_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        """Run the projector if it is known to take the features and the validation did not run it."""
        embeddings = self.buffers.get("z_")
        if self.from_config and embeddings is not None and embeddings.wanted:
            assert self.projector is not None
            with torch.no_grad():
                rows = self.buffers[""].steps[-1][0]
                self.projector(rows.to(next(self.projector.parameters(), rows).dtype))
        self._close_step()

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        """Measure if a measurement is due in this validation.

        Otherwise the rows are kept, because this validation may be the last one.
        """
        if self.on != "val" or trainer.sanity_checking or not self.buffers:
            return
        epoch, step = trainer.current_epoch, trainer.global_step
        self.unmeasured = epoch, step
        before = self.history[-1] if self.history else {"epoch": -1, "step": 0}
        # If the due epoch has no validation, the next epoch with one measures.
        whole = self.settings.every_n_epochs is not None and (epoch + 1) % self.settings.every_n_epochs == 0
        late = _is_due(self.settings.every_n_epochs, int(before["epoch"]) + 1, epoch + 1)
        due = whole or late or _is_due(self.settings.every_n_steps, int(before["step"]), step)
        ends = epoch + 1 == trainer.max_epochs
        if due or ends:
            self._measure(trainer, module, epoch, step, over=ends)
            self._log(module)

    def _open_step(self) -> None:
        for buffer in self.buffers.values():
            buffer.open_step()

    def _close_step(self) -> None:
        for buffer in self.buffers.values():
            buffer.close_step()

    def _close(self) -> None:
        for recorder in self.recorders:
            recorder.remove()
        self.recorders, self.buffers, self.unmeasured, self.projector = [], {}, None, None

    def _pass_images(self, trainer: Any, module: Any) -> None:
        for buffer in self.buffers.values():
            buffer.steps.clear()
        backbone = find_module("features", module, str(self.names["features"]))
        devices = [module.device] if module.device.type == "cuda" else []
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices=devices),
            evaluation_mode(module),
            trainer.precision_plugin.forward_context(),
        ):
            for images in self.images:
                self._open_step()
                features = backbone(images.to(module.device, next(backbone.parameters()).dtype))
                if self.projector is not None:
                    self.projector(features)
                self._close_step()

    def _measure(self, trainer: Any, module: Any, epoch: int, step: int, over: bool = False) -> None:
        """Measure, log and write the metrics, and look at the alarm; ``over``: no step follows."""
        self.unmeasured = None
        if self.on == "fixed":
            self._pass_images(trainer, module)
        taken = {prefix: buffer.rows() for prefix, buffer in self.buffers.items()}
        features, embeddings = taken[""], taken.get("z_", [])
        if not features:
            return
        values = measure(self.settings.metrics, features, embeddings)
        for layer in self.settings.layers:
            found = measure(self.settings.metrics, taken[f"{layer}/"])
            values |= {f"{layer}/{name}": value for name, value in found.items()}
        self.logged = {f"{self.name}/{name}": value for name, value in values.items()}
        writers.log_values(trainer, self.logged, epoch, step)
        writers.log_spectra(trainer, self.name, features[0], embeddings[0] if embeddings else None)
        self.history = [row for row in self.history if row["step"] < step]
        self.history.append({"epoch": epoch, "step": step, **values})
        if rank() == 0:
            if self.folder is not None:
                with writers.warn_if_writing_fails():
                    writers.write_csv(self.history, self.folder / f"{self.name}.csv")
            started = time.monotonic()
            if started >= self.next_plot:
                self._plot()
                self.next_plot = started + PLOT_PAUSE * (time.monotonic() - started)
        if self.alarm is not None and self.alarm_settings is not None:
            metric = self.alarm_settings.metric
            if metric not in values and len(self.history) == 1 and rank() == 0:
                warnings.warn(
                    f"monitor.alarm: the steps have no {metric}, so it does not see it fall.", stacklevel=2
                )
            limits = self.alarm_settings.limits
            watched = [values.get(name, torch.nan) for name in (metric, *limits)]
            # Use the values of the first process, whose state is saved: all of them stop, or none.
            first, *shares = all_gather(features[0].new_tensor([watched]))[0].tolist()
            known = [(name, share) for name, share in zip(limits, shares, strict=True) if isfinite(share)]
            beyond = {name: (share, limits[name]) for name, share in known if share >= limits[name]}
            triggered = self.alarm.look(first, *self._place(), bool(beyond) if known else None)
            if rank() == 0:
                with writers.warn_if_writing_fails():
                    self.alarm.keep_good(writers.checkpoints_of(trainer, self.folder))
            if triggered:
                self.alarm.named = self.alarm.good
                message = describe(self.alarm, type(module).__name__, metric, first, beyond)
                self._act(self.alarm, message, trainer, module, over)

    def _act(self, alarm: Alarm, message: str, trainer: Any, module: Any, over: bool) -> None:
        """Do what the block asks for, on all processes; stop the training where that is not possible."""
        action = self.alarm_settings.action if self.alarm_settings else "warn"
        if action == "warn":
            return send_alert(message, writers.wandb_logger(trainer))
        done = None if over or action == "stop" else self._respond(alarm, action, trainer, module)
        if done is not None:
            writers.log_values(trainer, {f"{self.name}/alarms": alarm.responses}, *self._place())
            return send_alert(f"{message} {done}", writers.wandb_logger(trainer))
        if not self.from_config:
            send_alert(f"{message} The training is stopped.", writers.wandb_logger(trainer))
            trainer.should_stop = True
            return
        if rank() == 0:
            self._plot()
        times = "once" if alarm.responses == 1 else f"{alarm.responses} times"
        before = {"rollback": f" It was rolled back {times}.", "remedy": " The remedy is in place."}
        stop(module, CollapseError(message + (before.get(action, "") if alarm.responses else "")))

    def _place(self) -> tuple[int, int]:
        return int(self.history[-1]["epoch"]), int(self.history[-1]["step"])

    def _respond(self, alarm: Alarm, action: str, trainer: Any, module: Any) -> str | None:
        """Roll back or add the remedy; return what was done, or None if nothing is left to do."""
        assert self.alarm_settings is not None and self.support is not None
        epoch, step = self._place()
        if action == "remedy":
            if alarm.remedy_from is not None:
                return None
            last = trainer.fit_loop.epoch_loop.batch_idx + 1 >= trainer.num_training_batches
            alarm.remedy_from = epoch + last
            remedy = self.alarm_settings.remedy.values()
            alarm.quiet = alarm.remedy_from + max(term.warmup_epochs for term in remedy)
            done: str | None = self.support.add_remedy(trainer, module, alarm.remedy_from)
        else:
            most = self.alarm_settings.rollbacks
            good = trainer.strategy.broadcast(alarm.good)  # the first process alone keeps it
            if alarm.responses >= most or not good:
                return None
            done = self.support.roll_back(trainer, module, good)
            for buffer in self.buffers.values():
                buffer.steps.clear()  # of the collapsed network
            done = done and f"{done} (rollback {alarm.responses + 1} of {most})."
        if done is not None:
            alarm.go_on(*((epoch, step) if action == "rollback" else (NEVER, NEVER)))
        return done

    def _log(self, module: Any) -> None:
        # The loggers have the values already; Lightning would log one look per epoch, or the mean.
        if self.logged:
            module.log_dict(self.logged, on_step=False, on_epoch=True, batch_size=1, logger=False)
            self.logged = {}

    def _plot(self) -> None:
        from solo_dimreg.plots import save_png

        if self.folder is not None and self.history:
            with writers.warn_if_writing_fails():
                save_png(writers.draw_history(self.history), self.folder / f"{self.name}.png")


class DimensionalityMonitor(BlockMonitor):
    """A Lightning callback that watches the dimensionality of the features while a model trains.

    It reads the outputs of two modules of the LightningModule, by hooks, in the training (or validation)
    step. It reads the first call of a module in each step. For ``alignment`` and ``lidar`` it also reads the
    second call before the backward pass, which must be on another view of the same images. It draws no random
    numbers and changes no gradient.

    It measures after an epoch or a number of steps, and at the end of the training. The metrics of the last
    samples are logged as ``dimensionality/...``, kept in ``history``, and written to ``dimensionality.csv``
    and ``.png`` in the folder of the logger (wandb gets them too). It works in distributed trainings, and
    with modules that ``torch.compile`` has compiled, unless these are called before the training.

    Several monitors in one trainer must differ in ``features``, ``embeddings`` or ``on``. The difference is
    added to the name under which each monitor logs and writes, as in ``dimensionality-val``.

    Args:
        features: Name of the module whose outputs (B, D) are the features, as in ``model.named_modules()``.
        embeddings: Name of the module whose outputs are the embeddings; None without one. With ``on="val"``,
            validation must call it.
        settings: The settings of a ``monitor:`` block: ``every_n_epochs`` (1), ``every_n_steps`` (None;
            optimizer steps, instead of epochs unless both are given), ``on`` ("train" or "val"),
            ``max_samples`` (1024, over all processes), ``metrics`` (names, see ``solo-dimreg methods``),
            ``layers`` (further modules by name, whose maps or tokens are averaged) and ``alarm``. The alarm
            is a mapping: it triggers when ``metric`` ("effective_rank") has been ``drawdown`` (0.8, a part)
            below its own peak in ``patience`` (3) looks in a row, or a share has been at its limit or
            above (``limits``, 0.97 for ``z_mean_share`` and ``z_off_diagonal_correlation``). Its ``action``
            "warn" prints one line, and "stop" also sets ``trainer.should_stop``. The checkpoint of a
            ``ModelCheckpoint`` from before the fall is kept.

    Attributes:
        history: The metrics so far, one dict for each look, with its ``epoch``, from 0, and ``step``.

    Raises:
        ConfigError: a setting is wrong; or, when the training starts, there is no such module.
        MissingPackageError: Lightning is not installed: ``pip install 'solo-dimreg[lightning]'``.

    Example:
        >>> monitor = DimensionalityMonitor(features="backbone", embeddings="projector", every_n_epochs=5)
        >>> trainer = Trainer(callbacks=[monitor])  # doctest: +SKIP
    """

    from_config = False

    def __init__(self, features: str = "backbone", embeddings: str | None = None, **settings: Any) -> None:
        # The second call of an unknown module may be on other images, so metrics of two views are measured
        # only if they are named.
        usual = [name for name in MONITORED if METRICS[name].inputs != VIEWS]
        chosen = read_blocks({"monitor": {"metrics": usual, **settings}}.get).monitor
        if chosen is None:
            raise ConfigError("enabled: False is not allowed; remove the callback from the trainer instead.")
        action = chosen.alarm.action if chosen.alarm else "warn"
        alone = "works in a config's monitor block alone; use"
        if chosen.on == "fixed":
            raise ConfigError(f"on: 'fixed' {alone} 'train' or 'val'.")
        if action in ("rollback", "remedy"):
            raise ConfigError(f"alarm.action: {action!r} {alone} 'warn' or 'stop'.")
        chosen.on = "train" if chosen.on == "auto" else chosen.on
        super().__init__(chosen, features, embeddings)


def _is_due(every: int | None, before: int, after: int) -> bool:
    """Return whether a multiple of ``every`` lies above ``before`` and not above ``after``."""
    return every is not None and after // every > before // every
