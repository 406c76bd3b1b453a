"""Writes checkpoints, and what lies beside them, whole and finite, or ends the training with one line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import torch

from solo_dimreg.blocks.stopping import is_lost_process, most, stop
from solo_dimreg.distributed import rank
from solo_dimreg.errors import TrainingError, warn, write_line


class Saving:
    """Takes over how a trainer and solo-learn's ``Checkpointer`` write.

    Attributes:
        kept: The last checkpoint that was written.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self.kept: Path | None = None
        self._failure: OSError | RuntimeError | None = None
        self._together_now = False

    def take_over(self, trainer: Any, checkpointers: type) -> None:
        """Of the trainer and its callbacks of that class."""
        trainer.save_checkpoint = self._whole(trainer.save_checkpoint)
        trainer.strategy.save_checkpoint = self._caught(trainer.strategy.save_checkpoint)
        for callback in trainer.callbacks:
            if isinstance(callback, checkpointers):
                saving: Any = callback
                saving.save = self._together(self._finite(self._forgiving(saving)))
                saving.save_args = self._together(self._whole_arguments(saving))
                saving.initial_setup = self._named_by_the_first(saving)

    def _named_by_the_first(self, checkpointer: Any) -> Callable[..., Any]:
        """Gives all processes the run folder of the first one; each has invented or counted one of its own.

        Only Lightning's own launcher hands a name to the processes that it starts; ``torchrun`` and ``srun``
        start each by itself.
        """
        setup = checkpointer.initial_setup

        @wraps(setup)
        def agreed(trainer: Any) -> None:
            setup(trainer)
            own = str(checkpointer.path), checkpointer.ckpt_placeholder
            path, checkpointer.ckpt_placeholder = trainer.strategy.broadcast(own)
            checkpointer.path = Path(path)

        return agreed

    def _finite(self, save: Callable[..., Any]) -> Callable[..., Any]:
        """Saves nothing that is not finite, so that the last finite checkpoint stays."""

        @wraps(save)
        def guarded(trainer: Any, *args: Any, **kwargs: Any) -> Any:
            if not all_finite(self.module):
                kept = f"; {self.kept} is kept" if self.kept else ""
                if rank() == 0:
                    write_line(f"No checkpoint is written: weights are not finite{kept}.")
                return None
            return save(trainer, *args, **kwargs)

        return guarded

    def _forgiving(self, checkpointer: Any) -> Callable[..., Any]:
        """Saves, whatever becomes of the checkpoint before, which solo-learn then removes."""
        save = checkpointer.save

        @wraps(save)
        def guarded(*args: Any, **kwargs: Any) -> None:
            before = self.kept
            try:
                save(*args, **kwargs)
            except OSError as error:
                if self.kept == before:
                    raise
                checkpointer.last_ckpt = self.kept
                if not isinstance(error, FileNotFoundError):
                    warn(f"{before}: the checkpoint before cannot be removed ({error}).")

        return guarded

    def _together(self, save: Callable[..., Any]) -> Callable[..., Any]:
        """Ends all processes when the first one cannot write: they would wait for it."""

        @wraps(save)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            found, failure = None, None
            self._together_now = True
            try:
                found = save(*args, **kwargs)
            except TrainingError as error:
                failure = error
            finally:
                self._together_now = False
            if most(int(failure is not None), self.module):
                stop(self.module, failure or TrainingError("The first process cannot write."))
            return found

        return guarded

    def _caught(self, write: Callable[..., Any]) -> Callable[..., Any]:
        """Keeps the error of a write until all processes have passed Lightning's barrier after it."""

        @wraps(write)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            try:
                return write(*args, **kwargs)
            except (OSError, RuntimeError) as error:
                if is_lost_process(error):
                    raise
                self._failure = error

        return guarded

    def _whole(self, save: Callable[..., Any]) -> Callable[..., Any]:
        """Saves under another name first: under its own, a checkpoint is whole or not there."""

        @wraps(save)
        def guarded(filepath: Any, *args: Any, **kwargs: Any) -> Any:
            path, self._failure = Path(filepath), None
            partial = _partial(path)
            for stale in path.parent.glob(".*.ckpt.partial") if rank() == 0 else ():
                stale.unlink(missing_ok=True)  # of a run that was killed while it wrote
            found = save(partial, *args, **kwargs)
            try:
                if self._failure is not None:
                    raise self._failure
                if rank() == 0:
                    os.replace(partial, path)
            except (OSError, RuntimeError) as error:
                partial.unlink(missing_ok=True)
                self._unwritten(path, "the checkpoint", error)
            self.kept = path
            return found

        return guarded

    def _whole_arguments(self, checkpointer: Any) -> Callable[..., Any]:
        """The same for ``args.json``, which solo-learn does not close: it does not see what failed."""
        save = checkpointer.save_args

        @wraps(save)
        def guarded(trainer: Any) -> None:
            folder = checkpointer.path
            path = folder / "args.json"
            checkpointer.path = _Beside(folder)
            try:
                save(trainer)
                if rank() == 0:
                    json.loads(_partial(path).read_text())
                    os.replace(_partial(path), path)
            except (OSError, ValueError) as error:
                _partial(path).unlink(missing_ok=True)
                self._unwritten(path, "the settings of the run", error)
            finally:
                checkpointer.path = folder

        return guarded

    def _unwritten(self, path: Path, what: str, error: Exception) -> None:
        kept = f"{self.kept} is kept" if self.kept else "there is no checkpoint before it"
        reason = str(error).strip().partition("\n")[0][:200]
        failure = TrainingError(f"{path}: {what} cannot be written ({reason}); {kept}.")
        if self._together_now:
            raise failure from error
        stop(self.module, failure, error)


class _Beside:
    """A folder in which every file goes by its partial name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __truediv__(self, name: str) -> Path:
        return _partial(self._folder / name)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def all_finite(module: Any) -> bool:
    """Whether all weights are; buffers may be infinite on purpose, or since one step overflowed."""
    return all(bool(torch.isfinite(weight).all()) for weight in module.parameters())
