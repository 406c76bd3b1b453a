"""The monitor as a callback for any LightningModule, of ``lightning`` or ``pytorch_lightning``."""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from typing import Any, TypeVar

from torch import nn

from solo_dimreg.config.blocks import METRICS, VIEW_METRICS, read_blocks
from solo_dimreg.errors import ConfigError, MissingPackageError
from solo_dimreg.monitor import block as monitor
from solo_dimreg.monitor.alarm import warn
from solo_dimreg.monitor.named_modules import find_module
from solo_dimreg.monitor.writers import validates, wandb_logger

LIGHTNINGS = ("lightning.pytorch", "pytorch_lightning")
# The prefix of the names of metrics, for each kind of rows.
PREFIXES = {"": "features", "z_": "embeddings"}
Kind = TypeVar("Kind", bound="DimensionalityMonitor")


class DimensionalityMonitor(monitor.DimensionalityMonitor):
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
            ``max_samples`` (1024, over all processes), ``metrics`` (names, see ``solo-dimreg methods``) and
            ``alarm``. The alarm is a mapping: it triggers when ``metric`` ("effective_rank") has been
            ``drawdown`` (0.8, a part) below its own peak in ``patience`` (3) looks in a row. Its ``action``
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

    _public: type[DimensionalityMonitor]

    def __new__(cls: type[Kind], *_: Any, **__: Any) -> Kind:
        """Create an instance of a class that also derives from the ``Callback`` of the Lightning in use."""
        callbacks = _callbacks()
        kind = cls if issubclass(cls, callbacks) else _join(cls, callbacks)  # type: ignore[arg-type]
        return object.__new__(kind)

    def __init__(self, features: str = "backbone", embeddings: str | None = None, **settings: Any) -> None:
        # The modules are found when the training starts. The second call of an unknown module may be on other
        # images, so metrics of two views are measured only if they are named.
        usual = {"metrics": [name for name in METRICS if name not in VIEW_METRICS]}
        chosen = read_blocks({"monitor": {**usual, **settings}}.get).monitor
        if chosen is None:
            raise ConfigError("enabled: False is not allowed; remove the callback from the trainer instead.")
        super().__init__(chosen, nn.Identity(), None)
        self.names = {"features": features, "embeddings": embeddings}
        self.alone = True  # in its trainer
        self.accepted = False  # by a trainer, beside its other monitors

    def __reduce__(self) -> Any:
        """Pickle by the public class: spawned processes cannot import the joined class by a name."""
        return _blank, (self._public,), vars(self)

    @property
    def identity(self) -> dict[str, Any]:
        """Return the settings by which this monitor differs from others in the same trainer."""
        return {**self.names, "on": self.settings.on}

    @property
    def state_key(self) -> str:
        """Return the name of the monitor's state in a checkpoint.

        Lightning refuses equal names as soon as the trainer is made, and does not say what to change. Until
        :meth:`setup` has compared the monitors, which does say it, each one has a name of its own.
        """
        name = f"{type(self).__qualname__}{self.identity!r}"
        return name if self.accepted else f"{name} at {id(self):#x}"

    @property
    def _legacy_state_key(self) -> Any:
        """Return the name of the state in older checkpoints, which had one monitor.

        With several monitors, none of them reads it, as its owner is not known.
        """
        return type(self).__qualname__ if self.alone else type(self)

    def setup(self, trainer: Any, module: Any, stage: str | None = None) -> None:
        """Take a distinct name among several monitors, and forget an earlier training."""
        super().setup(trainer, module, stage)
        kinds = (each for each in trainer.callbacks if isinstance(each, DimensionalityMonitor))
        others = [each.identity for each in kinds if each is not self]
        self.alone = not others
        if self.identity in others:
            raise ConfigError(
                f"features: two monitors look at {self.names['features']!r} on {self.settings.on!r}; "
                "keep one of them, with the metrics of both."
            )
        self.accepted = True
        differs = [key for key in self.identity if any(each[key] != self.identity[key] for each in others)]
        added = [str(self.identity[key]) for key in differs if self.identity[key] is not None]
        self.name = "-".join([monitor.NAME, *added])
        if self.alarm is not None:
            self.alarm.label = f".{self.name}" if added else ""

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        """Find the modules and hook their outputs."""
        found = {
            kind: find_module(kind, module, name) for kind, name in self.names.items() if name is not None
        }
        self.backbone, self.projector = found["features"], found.get("embeddings")
        self.options = {prefix: f"{kind} ({self.names[kind]})" for prefix, kind in PREFIXES.items()}
        super().on_fit_start(trainer, module)

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Raise if ``on="val"`` is asked for without a validation loader."""
        if self.settings.on == "val" and not validates(trainer):
            raise ConfigError("on: 'val' needs a validation loader: pass one to trainer.fit, or use 'train'.")
        super().on_train_start(trainer, module)

    def on_validation_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        """Stop reading outputs; the user's projector is not run, as its inputs are not known."""
        self._look(False)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Draw the last plot, and warn of modules that were never called."""
        windows = dict(self.windows)
        super().on_train_end(trainer, module)
        step = {"train": "training", "val": "validation"}[self.settings.on]
        for prefix, window in windows.items():
            if not window.opened:
                warnings.warn(
                    "monitor: the training ended before a validation, so there are no metrics.", stacklevel=2
                )
                return
            if not window.steps:
                kind = PREFIXES[prefix]
                named = f"{kind}={self.names[kind]!r}"
                warnings.warn(
                    f"monitor: {step} never called {named}, so there are no metrics of it.", stacklevel=2
                )
                return

    def _stop(self, trainer: Any, module: Any, message: str) -> None:
        warn(f"{message} The training is stopped.", wandb_logger(trainer))
        trainer.should_stop = True


def _callbacks() -> tuple[type, ...]:
    """Return the ``Callback`` of each Lightning that is imported, or of the first that can be imported."""
    loaded = [module for name in LIGHTNINGS if (module := sys.modules.get(name)) is not None]
    for name in () if loaded else LIGHTNINGS:
        try:
            loaded = [importlib.import_module(name)]
            break
        except ModuleNotFoundError as error:
            if error.name not in (name, name.partition(".")[0]):
                raise  # Lightning is installed, and something that it needs is not
    if not loaded:
        raise MissingPackageError(
            "DimensionalityMonitor needs Lightning: pip install 'solo-dimreg[lightning]'. In a training loop "
            "of your own, use DimensionalityTracker, which works without it."
        )
    return tuple(module.Callback for module in loaded)


@functools.cache
def _join(cls: type, callbacks: tuple[type, ...]) -> Any:
    content = {"__module__": cls.__module__, "__doc__": cls.__doc__, "_public": cls}
    return type(cls.__name__, (cls, *callbacks), content)


def _blank(cls: type[Kind]) -> Kind:
    return cls.__new__(cls)
