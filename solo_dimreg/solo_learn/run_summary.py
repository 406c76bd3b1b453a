"""A callback that prints the run summary: what the add-on does in a training, and how the training ended.

Every method brings the callback, so that solo-learn's own scripts print the summary too. The callback also
writes the record of the run, :mod:`solo_dimreg.solo_learn.record`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from solo_dimreg.distributed import rank
from solo_dimreg.errors import warn
from solo_dimreg.files import write_json
from solo_dimreg.monitor.callback import NAME
from solo_dimreg.monitor.writers import folder_of
from solo_dimreg.solo_learn.base import Host
from solo_dimreg.solo_learn.mixins import Mixin
from solo_dimreg.solo_learn.next_steps import next_steps
from solo_dimreg.solo_learn.record import RECORD, begin_record, counted, end_record


class RunSummary(Mixin):
    """The run summary callback."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self.host = host
        self.record: dict[str, Any] = {}
        self.alarms: list[dict[str, Any]] = []  # the rollbacks and remedies, also of the run that is resumed
        self.folder: Path | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return what followed the alarms so far, for the checkpoint."""
        return {"alarms": self.alarms} if self.alarms else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what followed the alarms before a resumption."""
        self.alarms = state_dict.get("alarms", [])

    def add_alarm(self, event: dict[str, Any]) -> None:
        """Write a rollback or a remedy into the record; a resumption of the run repeats none."""
        self.alarms = [
            each for each in self.alarms if each["action"] != "remedy" or event["action"] != "remedy"
        ]
        self.alarms.append(event)
        self.record["alarms"] = self.alarms
        self._write()

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Print the terms, the projector's last layer and the monitor's file; print nothing without any."""
        kept = any(type(each).__name__ == "Checkpointer" for each in trainer.callbacks) or trainer.loggers
        self.folder = folder_of(trainer) if kept else None
        self.record = begin_record(self.host.generation, trainer, self.host.config_of(module))
        if self.alarms:
            self.record["alarms"] = self.alarms
        self._write()
        parts = [*describe_terms(module, trainer.world_size, trainer.max_epochs)]
        if module.blocks.projector is not None:
            parts.append(f"projector ends with {module.blocks.projector.normalization}")
        if module.blocks.monitor is not None:
            folder = folder_of(trainer)
            where = f"to {folder / f'{NAME}.csv'}" if folder else "to wandb"
            parts.append(f"monitor {module.blocks.monitor.how_often()}, {where}")
        if rank() == 0 and parts:
            say(f"{type(module).__name__}: {'; '.join(parts)}.")

    def on_fit_end(self, trainer: Any, module: Any) -> None:
        """Print the result of the training and, in solo-learn's scripts, how to evaluate its checkpoint."""
        if not self.record:  # the run had already ended
            return
        raises = getattr(module, "raises", False)
        self.record |= end_record(trainer, self.host.config_of(module), raises)
        self._write()
        if rank() != 0:
            return
        say(describe_end(self.record))
        saved = self.folder and (self.folder / "args.json").is_file() and any(self.folder.glob("*.ckpt"))
        if self.folder and saved and not raises:
            say(f"Checkpoint: {self.folder}")
            say("Evaluate it with:")
            for line in next_steps(self.host, self.folder):
                tqdm.write(f"  {line}", file=sys.stderr)

    def _write(self) -> None:
        if rank() != 0 or self.folder is None:
            return
        try:
            write_json(self.folder / RECORD, self.record)
        except OSError as error:  # a failed record must not end a training
            warn(f"{self.folder / RECORD}: the record of the run cannot be written ({error}).")


def say(line: str) -> None:
    """Print a line with our name in front to standard error; standard output belongs to solo-learn."""
    tqdm.write(f"solo-dimreg: {line}", file=sys.stderr)  # not into the middle of a progress bar


def describe_terms(module: Any, processes: int, epochs: int) -> Iterator[str]:
    """Yield one description per regularizer: its input, its weight, its k for this batch, its first epoch."""
    for name, term in module.regularizers.items():
        said = f"{name} of the {term.where}, weight {term.weight:g}"
        if getattr(term.regularizer, "direction", "max") == "min":
            said += ", which LOWERS the LID (direction: min)"
        neighbours = getattr(term.regularizer, "neighbours", None)
        if neighbours is not None:
            term.regularizer.cap_is_known = True  # the summary says it
            batch = module.batch_size * processes
            encoders = 2 if hasattr(module, "momentum_updater") else 1
            k = min(neighbours(batch), encoders * module.num_large_crops * batch - 1)
            wanted = term.regularizer.k
            said += f", k = {k}" + (
                f" instead of {wanted}: the batch is too small" if wanted and wanted > k else ""
            )
        if math.isinf(term.warmup_epochs):
            said += ", a remedy that waits for the alarm"
        elif term.warmup_epochs >= epochs > 0:
            said += f", NEVER: warmup_epochs {term.warmup_epochs} of {epochs} epochs"
        elif term.warmup_epochs:
            said += f", from epoch {term.warmup_epochs + 1} of {epochs}"
        yield said


def describe_end(record: Mapping[str, Any]) -> str:
    """Return the line with which a training ends, from its record."""
    parts = [f"trained {counted(record['epochs'], 'epoch')}, {counted(record['steps'], 'step')}"]
    if record["resumed_from"]:
        parts[0] += f", resumed from {Path(record['resumed_from']).name}"
    if ranks := record["effective_rank"]:
        first, *later = ranks
        change = f" at first, {later[-1]:.1f} at last" if later else ", measured once"
        parts.append(f"effective rank of the features {first:.1f}{change}")
    if accuracy := record["online_accuracy"]:
        parts.append(f"online accuracy {accuracy['percent']:.1f} % on the {accuracy['images']} images")
    return "; ".join(parts) + "."
