"""Write checkpoints and the files beside them whole and finite, or end the training with one line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import torch

from solo_dimreg.distributed import rank
from solo_dimreg.errors import TrainingError, warn, write_line
from solo_dimreg.solo_learn.stopping import is_lost_process, most, stop


class Saving:
    """The writer that replaces how a trainer and solo-learn's ``Checkpointer`` save.

    Attributes:
        kept: The last checkpoint that was written.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self.kept: Path | None = None
        self._failure: OSError | RuntimeError | None = None
        self._together_now = False

    def take_over(self, trainer: Any, checkpointers: type) -> None:
        """Replace the saving of the trainer and of its callbacks of the given class."""
        trainer.save_checkpoint = self._whole(trainer.save_checkpoint)
        trainer.strategy.save_checkpoint = self._caught(trainer.strategy.save_checkpoint)
        for callback in trainer.callbacks:
            if isinstance(callback, checkpointers):
                saving: Any = callback
                saving.save = self._together(self._finite(self._forgiving(saving)))
                saving.save_args = self._together(self._whole_arguments(saving))
                saving.initial_setup = self._named_by_the_first(saving)

    def _named_by_the_first(self, checkpointer: Any) -> Callable[..., Any]:
        """Return a setup that gives all processes the run folder of the first one.

        Each process has invented or counted a folder of its own. Lightning's launcher hands a name to the
        processes that it starts, but ``torchrun`` and ``srun`` start each process by itself.
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
        """Return a save that skips weights that are not finite, so that the last finite checkpoint stays."""

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
        """Return a save that goes on if solo-learn cannot remove the previous checkpoint."""
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
                    warn(f"{before}: the previous checkpoint cannot be removed ({error}).")

        return guarded

    def _together(self, save: Callable[..., Any]) -> Callable[..., Any]:
        """Return a save that ends all processes if the first one cannot write.

        The other processes would wait for it otherwise.
        """

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
        """Return a write that keeps its error until all processes have passed Lightning's barrier."""

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
        """Return a save that writes under a temporary name first, so that no partial checkpoint appears."""

        @wraps(save)
        def guarded(filepath: Any, *args: Any, **kwargs: Any) -> Any:
            path, self._failure = Path(filepath), None
            partial = _partial(path)
            for stale in path.parent.glob(".*.ckpt.partial") if rank() == 0 else ():
                stale.unlink(missing_ok=True)  # from a run that was killed while it wrote
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
        """Return a save of ``args.json`` under a temporary name first.

        solo-learn does not close the file, so that it does not see a failed write.
        """
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
        kept = f"{self.kept} is kept" if self.kept else "there is no earlier checkpoint"
        reason = str(error).strip().partition("\n")[0][:200]
        failure = TrainingError(f"{path}: {what} cannot be written ({reason}); {kept}.")
        if self._together_now:
            raise failure from error
        stop(self.module, failure, error)


class _Beside:
    """A stand-in for a folder that gives every file its temporary name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __truediv__(self, name: str) -> Path:
        return _partial(self._folder / name)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def all_finite(module: Any) -> bool:
    """Return whether all weights are finite.

    Buffers may be infinite on purpose, or because one step overflowed.
    """
    return all(bool(torch.isfinite(weight).all()) for weight in module.parameters())
