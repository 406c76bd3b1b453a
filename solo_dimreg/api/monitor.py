"""The monitor as a callback for any LightningModule, with either name that Lightning is imported by."""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from typing import Any, TypeVar

from torch import nn

from solo_dimreg.blocks import monitor
from solo_dimreg.blocks.monitor import monitor_settings
from solo_dimreg.blocks.monitor_window import VIEW_METRICS
from solo_dimreg.blocks.named_modules import Tap, find_module
from solo_dimreg.errors import ConfigError, MissingPackageError

LIGHTNINGS = ("lightning.pytorch", "pytorch_lightning")
Kind = TypeVar("Kind", bound="DimensionalityMonitor")


class DimensionalityMonitor(monitor.DimensionalityMonitor):
    """A Lightning callback that watches the dimensionality of the representation while it trains.

    It looks at what two modules of the LightningModule put out in the training (or validation) step anyway:
    at their first call in each step; for ``alignment`` and ``lidar``, where they are asked for, at the second
    one before the backward pass too, which has to be on another view of the same images. Nothing random is
    drawn and no gradient changed. At the end of an epoch, the figures of its last samples are logged as
    ``dimensionality/...``, kept in ``history``, and written to ``dimensionality.csv`` and ``.png`` where the
    logger writes (with wandb, it has them). Works with every process of a distributed training.

    Args:
        features: Name of the module whose outputs (B, D) are the features, as in ``model.named_modules()``.
        embeddings: That of the module whose outputs are the embeddings, None without one. With
            ``on="val"``, validation must call it.
        settings: Those of a ``monitor:`` block: ``every_n_epochs`` (1), ``on`` ("train" or "val"),
            ``max_samples`` (1024, over all processes), ``metrics`` (names, see ``solo-dimreg methods``),
            ``alarm`` (a mapping, see the README; the checkpoints of a ``ModelCheckpoint`` are kept).

    Attributes:
        history: The figures so far, a dict an epoch.

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
        usual = {"metrics": [name for name in monitor.DEFAULTS["metrics"] if name not in VIEW_METRICS]}
        super().__init__(monitor_settings({**usual, **settings}) or {}, nn.Identity(), None)
        self.names = {"features": features, "embeddings": embeddings}
        self.taps: dict[str, Tap] = {}

    def __reduce__(self) -> Any:
        """The joined class has no name to be imported by, which spawned processes do."""
        return _blank, (self._public,), vars(self)

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        """Finds the modules."""
        self._close()
        found = {
            kind: find_module(kind, module, name) for kind, name in self.names.items() if name is not None
        }
        self.taps = {kind: Tap(f"{kind} ({self.names[kind]})", part) for kind, part in found.items()}
        self.backbone, self.projector = self.taps["features"], self.taps.get("embeddings")

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Begins to look at the modules' outputs."""
        if self.settings["on"] == "val" and not sum(trainer.num_val_batches):
            raise ConfigError("on: 'val' needs a validation loader: hand one to trainer.fit, or use 'train'.")
        super().on_train_start(trainer, module)

    def on_validation_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        """Looks away: what a projector of the user's own wants is not known, so it is not run."""
        self._look(False)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Draws the last plot, and says what was never seen."""
        super().on_train_end(trainer, module)
        seen = {
            "features": self.history,
            "embeddings": [r for r in self.history if any(n[:2] == "z_" for n in r)],
        }
        for kind, name in self.names.items():
            if name is not None and not seen[kind]:
                step = {"train": "training", "val": "validation"}[self.settings["on"]]
                warnings.warn(
                    f"monitor: {step} never called {kind}={name!r}: no figures of it.", stacklevel=2
                )
                break

    def _close(self) -> None:
        super()._close()
        for tap in self.taps.values():
            tap.remove()
        self.taps = {}


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
