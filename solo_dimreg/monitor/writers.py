"""Write the monitor's metrics to a CSV file, a plot and wandb."""

from __future__ import annotations

import csv
import io
import warnings
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from torch import Tensor

from solo_dimreg.distributed import rank
from solo_dimreg.files import write_text
from solo_dimreg.functional import singular_spectrum


@contextmanager
def warn_if_writing_fails() -> Iterator[None]:
    """Turn a failed write into a warning, so that a full disk does not end a training of days."""
    try:
        yield
    except OSError as error:
        warnings.warn(f"monitor: nothing was written ({error}).", stacklevel=3)


def write_csv(history: list[dict[str, float]], path: Path) -> None:
    """Write the whole history, one row per look and one column per metric."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in history for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(path, text.getvalue())


def draw_history(history: list[dict[str, float]]) -> Any:
    """Return a figure of all metrics, with a panel for each metric of features and embeddings.

    The curves are drawn over the steps; below a step stands its epoch, counted from 1.
    """
    from solo_dimreg.plots import draw_curves

    panels: dict[str, dict[str, list[dict[int, float]]]] = {}
    for name in dict.fromkeys(name for row in history for name in row if name not in ("epoch", "step")):
        layer, _, metric = name.rpartition("/")
        kind = layer or ("embeddings" if name.startswith("z_") else "features")
        metric = metric if layer else metric.removeprefix("z_")
        curve = {int(row["step"]): row[name] for row in history if name in row}
        panels.setdefault(metric.replace("_", " "), {})[kind] = [curve]
    kinds = dict.fromkeys(kind for curves in panels.values() for kind in curves)
    figure = draw_curves(panels, list({"features": None, "embeddings": None} | kinds), "step")
    steps, epochs = ([int(row[axis]) for row in history] for axis in ("step", "epoch"))

    def with_epoch(step: float, _: float) -> str:
        return f"{step:.0f}\n({epochs[min(bisect_left(steps, step), len(steps) - 1)] + 1})"

    for axes in figure.axes:
        axes.xaxis.set_major_formatter(with_epoch)
        axes.set_xlabel("step (epoch)")
    return figure


def log_values(trainer: Any, values: Mapping[str, float], epoch: int, step: int) -> None:
    """Log values at once, instead of at the end of the epoch (from 0) as Lightning does."""
    if rank() == 0:
        for logger in trainer.loggers:  # Lightning counts the steps that it logs from 0
            logger.log_metrics({"epoch": epoch, **values}, step=max(0, step - 1))
            logger.save()


def log_spectra(trainer: Any, title: str, features: Tensor, embeddings: Tensor | None) -> None:
    """Log a plot of the log spectra if the run is logged to wandb."""
    logger = wandb_logger(trainer)
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
    logger.experiment.log({f"{title}/spectrum": plot, "trainer/global_step": trainer.global_step})


def folder_of(trainer: Any) -> Path | None:
    """Return the folder of the checkpoints; without checkpoints, the logger's folder.

    Without a logger, it is a new folder with the time in its name. A run that only wandb logs has none.
    """
    # Read it on every process, because Lightning broadcasts it. Not every logger has one.
    logs = trainer.log_dir or trainer.default_root_dir
    for callback in trainer.callbacks:
        if type(callback).__name__ == "Checkpointer":
            return Path(callback.path)
    if not trainer.loggers:
        return Path(logs, f"dimensionality-{datetime.now():%Y%m%d-%H%M%S}")
    return None if wandb_logger(trainer) else Path(logs)


def validates(trainer: Any) -> bool:
    """Return whether the training has validations.

    Lightning does not load those of later epochs when the training begins.
    """
    known = trainer.check_val_every_n_epoch == 1
    return trainer.enable_validation and (not known or sum(trainer.num_val_batches) > 0)


def checkpoints_of(trainer: Any, folder: Path | None) -> list[Path]:
    """Return the checkpoints of this run: a ``ModelCheckpoint``'s, or solo-learn's in the run's folder."""
    known: list[Any] = []
    for callback in trainer.checkpoint_callbacks:
        for name in ("best_k_models", "best_model_path", "last_model_path"):
            value = getattr(callback, name, "")
            known += [value] if isinstance(value, str) else value
    if known := [Path(path) for path in known if path and Path(path).is_file()]:
        return known
    return [*folder.rglob("*.ckpt")] if folder is not None and folder.is_dir() else []


def wandb_logger(trainer: Any) -> Any:
    """Return Lightning's ``WandbLogger`` of the run, or None."""
    return next((logger for logger in trainer.loggers if type(logger).__name__ == "WandbLogger"), None)
