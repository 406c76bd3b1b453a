"""The monitor as a callback for any LightningModule, with either name that Lightning is imported by."""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from typing import Any, TypeVar

from torch import nn

from solo_dimreg.blocks import monitor
from solo_dimreg.blocks.alarm import warn
from solo_dimreg.blocks.monitor_files import validates, wandb_logger
from solo_dimreg.blocks.monitor_settings import DEFAULTS, monitor_settings
from solo_dimreg.blocks.monitor_window import VIEW_METRICS
from solo_dimreg.blocks.named_modules import find_module
from solo_dimreg.errors import ConfigError, MissingPackageError

LIGHTNINGS = ("lightning.pytorch", "pytorch_lightning")
# Of the names of metrics, by what they are of.
PREFIXES = {"": "features", "z_": "embeddings"}
Kind = TypeVar("Kind", bound="DimensionalityMonitor")


class DimensionalityMonitor(monitor.DimensionalityMonitor):
    """A Lightning callback that watches the dimensionality of the representation while it trains.

    It looks at what two modules of the LightningModule put out in the training (or validation) step anyway:
    at their first call in each step; for ``alignment`` and ``lidar``, where they are asked for, at the second
    one before the backward pass too, which has to be on another view of the same images. Nothing random is
    drawn and no gradient changed. After an epoch, or a number of steps, and at the end of the training, the
    metrics of the last samples are logged as ``dimensionality/...``, kept in ``history``, and written to
    ``dimensionality.csv`` and ``.png`` where the logger writes (with wandb, it has them). Works with every
    process of a distributed training, and with modules that ``torch.compile`` has compiled, if they are not
    called before the training.

    Several of them in one trainer have to differ in ``features``, ``embeddings`` or ``on``; what differs is
    added to the name under which each logs and writes, as in ``dimensionality-val``.

    Args:
        features: Name of the module whose outputs (B, D) are the features, as in ``model.named_modules()``.
        embeddings: That of the module whose outputs are the embeddings, None without one. With
            ``on="val"``, validation must call it.
        settings: Those of a ``monitor:`` block: ``every_n_epochs`` (1), ``every_n_steps`` (None; optimizer
            steps, instead of epochs unless both are given), ``on`` ("train" or "val"), ``max_samples`` (1024,
            over all processes), ``metrics`` (names, see ``solo-dimreg methods``) and ``alarm``, a mapping:
            ``metric`` ("effective_rank"), which has to have lost ``drawdown`` (0.8, a part) of its largest
            value in ``patience`` (3) looks in a row; ``action`` "warn" prints one line, "stop" also sets
            ``trainer.should_stop``. The checkpoint of a ``ModelCheckpoint`` from before the fall is kept.

    Attributes:
        history: The metrics so far, a dict a look, with its ``epoch``, from 0, and ``step``.

    Raises:
        ConfigError: a setting is wrong or, when the training starts, there is no such module.
        MissingPackageError: Lightning is not installed: ``pip install 'solo-dimreg[lightning]'``.

    Example:
        >>> monitor = DimensionalityMonitor(features="backbone", embeddings="projector", every_n_epochs=5)
        >>> trainer = Trainer(callbacks=[monitor])  # doctest: +SKIP
    """

    _public: type[DimensionalityMonitor]

    def __new__(cls: type[Kind], *_: Any, **__: Any) -> Kind:
        """Joined to the ``Callback`` of the Lightning in use."""
        callbacks = _callbacks()
        kind = cls if issubclass(cls, callbacks) else _join(cls, callbacks)  # type: ignore[arg-type]
        return object.__new__(kind)

    def __init__(self, features: str = "backbone", embeddings: str | None = None, **settings: Any) -> None:
        # The modules are found when the training starts.
        # A module of which nothing is known may be called on other images than the second view of the same.
        usual = {"metrics": [name for name in DEFAULTS["metrics"] if name not in VIEW_METRICS]}
        chosen = monitor_settings({**usual, **settings})
        if chosen is None:
            raise ConfigError(
                "enabled: False is not allowed; leave the callback out of those of the trainer."
            )
        super().__init__(chosen, nn.Identity(), None)
        self.names = {"features": features, "embeddings": embeddings}
        self.alone = True  # in its trainer

    def __reduce__(self) -> Any:
        """The joined class has no name to be imported by, which spawned processes do."""
        return _blank, (self._public,), vars(self)

    @property
    def identity(self) -> dict[str, Any]:
        """What tells it from others in the same trainer."""
        return {**self.names, "on": self.settings["on"]}

    @property
    def state_key(self) -> str:
        """The name of its state in a checkpoint."""
        return f"{type(self).__qualname__}{self.identity!r}"

    @property
    def _legacy_state_key(self) -> Any:
        """The name in older checkpoints, which had one monitor: of several, it is not known whose it is."""
        return type(self).__qualname__ if self.alone else type(self)

    def setup(self, trainer: Any, module: Any, stage: str | None = None) -> None:
        """Takes a name of its own among several, and forgets an earlier training."""
        super().setup(trainer, module, stage)
        kinds = (each for each in trainer.callbacks if isinstance(each, DimensionalityMonitor))
        others = [each.identity for each in kinds if each is not self]
        self.alone = not others
        if self.identity in others:
            raise ConfigError(
                f"features: two monitors look at {self.names['features']!r} on {self.settings['on']!r}; "
                "give one of them the metrics of both."
            )
        differs = [key for key in self.identity if any(each[key] != self.identity[key] for each in others)]
        added = [str(self.identity[key]) for key in differs if self.identity[key] is not None]
        self.name = "-".join([monitor.NAME, *added])
        if self.alarm is not None:
            self.alarm.label = f".{self.name}" if added else ""

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        """Finds the modules and begins to look at their outputs."""
        found = {
            kind: find_module(kind, module, name) for kind, name in self.names.items() if name is not None
        }
        self.backbone, self.projector = found["features"], found.get("embeddings")
        self.options = {prefix: f"{kind} ({self.names[kind]})" for prefix, kind in PREFIXES.items()}
        super().on_fit_start(trainer, module)

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Refuses what cannot be measured."""
        if self.settings["on"] == "val" and not validates(trainer):
            raise ConfigError("on: 'val' needs a validation loader: hand one to trainer.fit, or use 'train'.")
        super().on_train_start(trainer, module)

    def on_validation_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        """Looks away: what a projector of the user's own wants is not known, so it is not run."""
        self._look(False)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Draws the last plot, and says what was never seen."""
        windows = dict(self.windows)
        super().on_train_end(trainer, module)
        step = {"train": "training", "val": "validation"}[self.settings["on"]]
        for prefix, window in windows.items():
            if not window.opened:
                warnings.warn("monitor: the training ended before a validation: no metrics.", stacklevel=2)
                return
            if not window.steps:
                kind = PREFIXES[prefix]
                named = f"{kind}={self.names[kind]!r}"
                warnings.warn(f"monitor: {step} never called {named}: no metrics of it.", stacklevel=2)
                return

    def _stop(self, trainer: Any, module: Any, message: str) -> None:
        warn(f"{message} The training is stopped.", wandb_logger(trainer))
        trainer.should_stop = True


def _callbacks() -> tuple[type, ...]:
    """The ``Callback`` of each Lightning that has been imported, or else of the first that can be."""
    loaded = [module for name in LIGHTNINGS if (module := sys.modules.get(name)) is not None]
    for name in () if loaded else LIGHTNINGS:
        try:
            loaded = [importlib.import_module(name)]
            break
        except ModuleNotFoundError as error:
            if error.name not in (name, name.partition(".")[0]):
                raise  # it is there, and something that it needs is not
    if not loaded:
        raise MissingPackageError(
            "DimensionalityMonitor needs Lightning: pip install 'solo-dimreg[lightning]'. In a loop of "
            "your own, DimensionalityTracker needs none."
        )
    return tuple(module.Callback for module in loaded)


@functools.cache
def _join(cls: type, callbacks: tuple[type, ...]) -> Any:
    content = {"__module__": cls.__module__, "__doc__": cls.__doc__, "_public": cls}
    return type(cls.__name__, (cls, *callbacks), content)


def _blank(cls: type[Kind]) -> Kind:
    return cls.__new__(cls)
