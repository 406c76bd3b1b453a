"""Watches the dimensionality of the representation while it trains: the ``monitor:`` block of a config.

    monitor:
      every_n_epochs: 1
      on: train            # or val
      max_samples: 1024
      metrics: [effective_rank, lid, matrix_entropy, mutual_information, off_diagonal_correlation]

The features (and embeddings) are those that the training or the validation computes anyway: of the last
images of an epoch, without a second forward pass. Nothing random is drawn and nothing is changed, so the
training is the same, to the bit, with and without.
"""

from __future__ import annotations

import csv
import io
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from solo_dimreg.blocks.regularizers import check_keys
from solo_dimreg.distributed import all_gather, rank, world_size
from solo_dimreg.errors import ConfigError, unknown
from solo_dimreg.files import write_text
from solo_dimreg.functional import matrix_mutual_information, singular_spectrum
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
    ],
}
# Figures of features and embeddings together; the registered metrics look at one of them at a time.
PAIR_METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mutual_information": matrix_mutual_information
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
    metrics, known = settings["metrics"], {*registered("metrics"), *PAIR_METRICS}
    if isinstance(metrics, str) or not isinstance(metrics, list | tuple) or not metrics:
        raise ConfigError(
            f"monitor.metrics: {metrics!r} is not allowed; give a list of {', '.join(sorted(known))}."
        )
    for metric in metrics:
        if metric not in known:
            raise ConfigError(f"monitor.metrics: {unknown('metric', str(metric), known)}")
    return settings


class _Window:
    """The last rows that a module put out, at most ``size`` of them, of the first call in each step."""

    def __init__(self, module: nn.Module, size: int) -> None:
        self.size = size
        self.rows: list[Tensor] = []
        self.open = False
        self._handle = module.register_forward_hook(self._see)

    def _see(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if not self.open:
            return
        self.open = False  # the other crops are other views of the same images
        self.rows.append((output[0] if isinstance(output, tuple) else output).detach())
        while sum(map(len, self.rows[1:])) >= self.size:
            self.rows.pop(0)

    def take(self) -> Tensor | None:
        """The rows of all processes, (N, D); the window is empty afterwards."""
        if not self.rows:
            return None
        rows = torch.cat(self.rows)[-max(1, self.size // world_size()) :]
        self.rows = []
        return all_gather(rows.float().contiguous())

    def remove(self) -> None:
        self._handle.remove()


def make_monitor(
    callback: type, settings: Mapping[str, Any], backbone: nn.Module, projector: nn.Module | None
) -> Any:
    """A Lightning callback that logs the figures and keeps ``dimensionality.csv`` and ``.png`` up to date.

    Args:
        callback: ``Callback`` of the Lightning in use.
        settings: From :func:`monitor_settings`.
        backbone: The module whose outputs are the features.
        projector: That whose outputs are the embeddings, where there is one.
    """

    class DimensionalityMonitor(callback):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.history: list[dict[str, float]] = []
            self.windows: dict[str, _Window] = {}
            self.folder: Path | None = None
            self.next_plot = 0.0

        def state_dict(self) -> dict[str, Any]:
            return {"history": self.history}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.history = state_dict["history"]

        def on_train_start(self, trainer: Any, module: Any) -> None:
            if settings["on"] == "val" and not sum(trainer.num_val_batches):
                raise ConfigError(
                    "monitor.on: 'val' needs validation images: set data.val_path, or use train."
                )
            self.folder = _folder(trainer)
            size = settings["max_samples"]
            self.windows = {"": _Window(backbone, size)}
            if projector is not None:
                self.windows["z_"] = _Window(projector, size)

        def on_train_end(self, trainer: Any, module: Any) -> None:
            if rank() == 0:
                self._plot()
            self._close()

        def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
            self._close()

        def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
            if settings["on"] == "train" and self._wanted(trainer):
                self._look(True)

        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            self._look(False)  # a validation that follows is not the training
            # Not at the end of the epoch, when the checkpoint is saved: the state in it includes this epoch.
            if settings["on"] == "train" and trainer.is_last_batch and self._wanted(trainer):
                self._measure(trainer, module)

        def on_validation_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
            if settings["on"] == "val" and not trainer.sanity_checking and self._wanted(trainer):
                self._look(True)

        def on_validation_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            embeddings = self.windows.get("z_")
            if embeddings is not None and embeddings.open:  # validation has no use for the projector
                with torch.no_grad():
                    rows = self.windows[""].rows[-1]
                    weight = next(projector.parameters(), rows)  # type: ignore[union-attr]
                    projector(rows.to(weight.dtype))  # type: ignore[misc]

        def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
            if settings["on"] == "val" and not trainer.sanity_checking and self._wanted(trainer):
                self._measure(trainer, module)

        def _wanted(self, trainer: Any) -> bool:
            epoch = trainer.current_epoch + 1
            return bool(self.windows) and (
                epoch % settings["every_n_epochs"] == 0 or epoch == trainer.max_epochs
            )

        def _close(self) -> None:
            for window in self.windows.values():
                window.remove()

        def _look(self, open_: bool) -> None:
            for window in self.windows.values():
                window.open = open_

        def _measure(self, trainer: Any, module: Any) -> None:
            taken = {prefix: window.take() for prefix, window in self.windows.items()}
            features, embeddings = taken[""], taken.get("z_")
            if features is None:
                return
            figures = _figures(settings["metrics"], features, embeddings)
            logged = {f"dimensionality/{name}": value for name, value in figures.items()}
            module.log_dict(logged, on_step=False, on_epoch=True, batch_size=1)
            _log_spectra(trainer, features, embeddings)
            epoch = trainer.current_epoch
            self.history = [row for row in self.history if row["epoch"] < epoch]
            self.history.append({"epoch": epoch, "step": trainer.global_step, **figures})
            if rank() == 0:
                self._write()
                started = time.monotonic()
                if started >= self.next_plot:
                    self._plot()
                    self.next_plot = started + PLOT_PAUSE * (time.monotonic() - started)

        def _write(self) -> None:
            if self.folder is not None:
                with _harmless():
                    write_csv(self.history, self.folder / f"{NAME}.csv")

        def _plot(self) -> None:
            from solo_dimreg.plots import save_png

            if self.folder is not None and self.history:
                with _harmless():
                    save_png(draw_history(self.history), self.folder / f"{NAME}.png")

    DimensionalityMonitor.__qualname__ = DimensionalityMonitor.__name__  # its name in checkpoints
    return DimensionalityMonitor()


@contextmanager
def _harmless() -> Iterator[None]:
    """A full disk, say, must not end a training of days for the sake of a plot."""
    try:
        yield
    except OSError as error:
        warnings.warn(f"monitor: nothing was written ({error}).", stacklevel=3)


def write_csv(history: list[dict[str, float]], path: Path) -> None:
    """Writes one row an epoch and one column a figure, whole."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in history for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(path, text.getvalue())


def draw_history(history: list[dict[str, float]]) -> Any:
    """The curves of all figures, those of features and embeddings in one panel each."""
    from solo_dimreg.plots import draw_curves

    panels: dict[str, dict[str, list[dict[int, float]]]] = {}
    for name in dict.fromkeys(name for row in history for name in row if name not in ("epoch", "step")):
        figure, kind = (name[2:], "embeddings") if name.startswith("z_") else (name, "features")
        curve = {int(row["epoch"]): row[name] for row in history if name in row}
        panels.setdefault(figure.replace("_", " "), {})[kind] = [curve]
    return draw_curves(panels, ["features", "embeddings"])


def _figures(metrics: list[str], features: Tensor, embeddings: Tensor | None) -> dict[str, float]:
    """Every metric of the features and, with the prefix ``z_``, of the embeddings."""
    known = registered("metrics")
    found: dict[str, float] = {}
    for name in metrics:
        if name in PAIR_METRICS:
            if embeddings is not None:
                found[name] = _value(name, PAIR_METRICS[name], features, embeddings)
            continue
        found[name] = _value(name, known[name].value, features)
        if embeddings is not None:
            found[f"z_{name}"] = _value(name, known[name].value, embeddings)
    return found


@torch.no_grad()
def _value(name: str, metric: Callable[..., Tensor], *inputs: Tensor) -> float:
    """A plugin's metric that fails must not end a training of days."""
    try:
        return float(metric(*inputs))
    except Exception as error:
        warnings.warn(f"monitor.metrics: {name} failed ({type(error).__name__}: {error}).", stacklevel=2)
        return torch.nan


def _log_spectra(trainer: Any, features: Tensor, embeddings: Tensor | None) -> None:
    """The log spectra as a plot, where the run is logged to wandb."""
    logger = _wandb_logger(trainer)
    if rank() != 0 or logger is None:
        return
    import wandb

    spectra = {"features": features, "embeddings": embeddings}
    logs = {
        name: singular_spectrum(x).clamp_min(1e-30).log10().tolist()
        for name, x in spectra.items()
        if x is not None
    }
    plot = wandb.plot.line_series(
        [list(range(1, len(values) + 1)) for values in logs.values()],
        list(logs.values()),
        keys=list(logs),
        title="log10 singular values of the covariance",
        xname="index",
    )
    logger.experiment.log({"dimensionality/spectrum": plot, "trainer/global_step": trainer.global_step})


def _folder(trainer: Any) -> Path | None:
    """Where the checkpoints go; without any, where the logger writes, or a folder of its own without one."""
    logs = trainer.log_dir  # on every process: Lightning broadcasts it
    for callback in trainer.callbacks:
        if type(callback).__name__ == "Checkpointer":
            return Path(callback.path)
    if not trainer.loggers:
        return Path(logs, f"dimensionality-{datetime.now():%Y%m%d-%H%M%S}")
    return None if _wandb_logger(trainer) else Path(logs)


def _wandb_logger(trainer: Any) -> Any:
    return next((logger for logger in trainer.loggers if type(logger).__name__ == "WandbLogger"), None)
