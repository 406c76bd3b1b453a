"""Write checkpoints and the files beside them whole and finite, or end the training with one line.

Both Lightnings write a checkpoint under its own name, so that a killed process or a full disk leaves a part.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from solo_dimreg.distributed import rank
from solo_dimreg.errors import TrainingError, warn, write_line
from solo_dimreg.monitor.stopping import is_lost_process, max_over_processes, stop
from solo_dimreg.solo_learn.mixins import Mixin, mixed_in


class Saving:
    """The writer that replaces how a trainer and solo-learn's ``Checkpointer`` save.

    Attributes:
        kept: The last checkpoint that was written.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self.kept: Path | None = None
        self._failure: OSError | RuntimeError | None = None

    def take_over(self, trainer: Any) -> None:
        """Replace the saving of the trainer and of its callbacks of solo-learn."""
        from solo.utils import checkpointer

        # In a second training of this trainer, the first one's replacements are replaced.
        write, save = (
            getattr(method, "__wrapped__", method)
            for method in (trainer.strategy.save_checkpoint, trainer.save_checkpoint)
        )

        @wraps(write)
        def write_partial(checkpoint: Any, filepath: Any, *args: Any, **kwargs: Any) -> None:
            """Write under a temporary name, and keep an error until all have passed Lightning's barrier."""
            path = Path(filepath)
            try:
                for stale in path.parent.glob(".*.ckpt.partial") if rank() == 0 else ():
                    stale.unlink(missing_ok=True)  # from a run that was killed while it wrote
                write(checkpoint, _partial(path), *args, **kwargs)
            except (OSError, RuntimeError) as error:
                if is_lost_process(error):
                    raise
                self._failure = error

        @wraps(save)
        def save_whole(filepath: Any, *args: Any, **kwargs: Any) -> None:
            path, self._failure = Path(filepath), None
            save(path, *args, **kwargs)
            try:
                if self._failure is not None:
                    raise self._failure
                if rank() == 0:
                    os.replace(_partial(path), path)
            except (OSError, RuntimeError) as error:
                _partial(path).unlink(missing_ok=True)
                raise self.failure(path, "the checkpoint", error) from error
            self.kept = path

        trainer.strategy.save_checkpoint, trainer.save_checkpoint = write_partial, save_whole
        for callback in trainer.callbacks:
            if isinstance(callback, Checkpointer):  # in a second training of this trainer
                callback.saving = self
            elif isinstance(callback, checkpointer.Checkpointer):
                callback.__class__ = mixed_in(Checkpointer, type(callback), saving=self)

    def failure(self, path: Path, what: str, error: Exception) -> TrainingError:
        """Return the error for a file that cannot be written."""
        kept = f"{self.kept} is kept" if self.kept else "there is no earlier checkpoint"
        reason = str(error).strip().partition("\n")[0][:200]
        return TrainingError(f"{path}: {what} cannot be written ({reason}); {kept}.")

    @contextmanager
    def ending_all_processes(self) -> Iterator[None]:
        """End all processes if the first one cannot write; the others would wait for it."""
        failure = None
        try:
            yield
        except TrainingError as error:
            failure = error
        if max_over_processes(int(failure is not None), self.module):
            stop(self.module, failure or TrainingError("The first process cannot write."))


class Checkpointer(Mixin):
    """solo-learn's callback of this name, which leaves whole files only; others find it by the name."""

    saving: Saving
    path: Path
    ckpt_placeholder: str

    def initial_setup(self, trainer: Any) -> None:
        """Give all processes the run folder of the first one.

        Each process has invented or counted a folder of its own. Lightning's launcher hands a name to the
        processes that it starts, but ``torchrun`` and ``srun`` start each process by itself.
        """
        super().initial_setup(trainer)
        own = str(self.path), self.ckpt_placeholder
        path, self.ckpt_placeholder = trainer.strategy.broadcast(own)
        self.path = Path(path)

    def save(self, trainer: Any) -> None:
        """Save, unless weights are not finite; go on if the previous checkpoint cannot be removed."""
        before = self.saving.kept
        with self.saving.ending_all_processes():
            if not all_finite(self.saving.module):
                if rank() == 0:
                    kept = f"; {before} is kept" if before else ""
                    write_line(f"No checkpoint is written: weights are not finite{kept}.")
                return
            try:
                super().save(trainer)
            except OSError as error:
                if self.saving.kept == before:
                    raise
                self.last_ckpt = self.saving.kept
                if not isinstance(error, FileNotFoundError):
                    warn(f"{before}: the previous checkpoint cannot be removed ({error}).")

    def save_args(self, trainer: Any) -> None:
        """Save ``args.json`` in another folder first.

        solo-learn does not close the file, so that it does not see a failed write.
        """
        folder = self.path
        with self.saving.ending_all_processes():
            if rank() != 0:
                return
            try:
                with TemporaryDirectory(prefix=".", dir=folder) as partial:
                    self.path = Path(partial)
                    super().save_args(trainer)
                    json.loads((self.path / "args.json").read_text())
                    os.replace(self.path / "args.json", folder / "args.json")
            except (OSError, ValueError) as error:
                raise self.saving.failure(folder / "args.json", "the settings of the run", error) from error
            finally:
                self.path = folder


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def all_finite(module: Any) -> bool:
    """Return whether all weights are finite.

    Buffers may be infinite on purpose, or because one step overflowed.
    """
    return all(bool(torch.isfinite(weight).all()) for weight in module.parameters())
