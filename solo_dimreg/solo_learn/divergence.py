"""A divergence callback that stops a training that has diverged, and keeps its checkpoints whole and finite.

Every method brings the callback, so that it also works in solo-learn's own scripts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solo_dimreg.distributed import rank, world_size
from solo_dimreg.errors import DimregError, DivergenceError, TrainingError, write_line
from solo_dimreg.monitor.stopping import (
    is_lost_process,
    let_processes_end,
    max_over_processes,
    stop,
)
from solo_dimreg.solo_learn.base import Host
from solo_dimreg.solo_learn.continuing import Continuing, random_states, set_random_states
from solo_dimreg.solo_learn.mixins import Mixin
from solo_dimreg.solo_learn.run_summary import say
from solo_dimreg.solo_learn.saving import Saving, all_finite
from solo_dimreg.solo_learn.scripts import end_script

NEVER = 2**62
LONGEST_WAIT = 1_000  # steps from one look at the losses to the next, however long the patience is


class DivergenceCallback(Mixin):
    """The divergence callback, which stops after ``patience`` steps in a row without a finite loss.

    It keeps the losses of the last steps on the device and looks at them before the training could have had
    ``patience`` steps in a row without a finite loss, and at the end of each epoch, before a checkpoint is
    saved. No step in between waits for the device or sends a message.
    """

    state_key = "Guard"  # checkpoints store its state under this name

    def __init__(self, host: Host, patience: int) -> None:
        super().__init__()
        self.host, self.patience = host, patience
        self.bad = 0  # steps in a row without a finite loss, until the last look
        self.wait = patience  # steps until the next look
        # Each step since the last look: its number, its loss and terms as one tensor, the names of the terms.
        self.unseen: list[tuple[int, Tensor, list[str]]] = []
        self.printed = False
        self.first = (NEVER, "")  # the step and process as one number, and the message
        self.saving: Saving | None = None
        self.continuing: Continuing | None = None
        self.resumed: dict[str, Any] | None = None
        self.module: Any = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run needs and that solo-learn and Lightning do not save."""
        updater = getattr(self.module, "momentum_updater", None)
        return {
            "random": random_states(),
            "tau": None if updater is None else float(updater.cur_tau),
            "last_step": getattr(self.module, "last_step", None),
            "schedule": self.continuing.state(self.module.trainer, self.module) if self.continuing else {},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state of a checkpoint until the training continues."""
        self.resumed = state_dict

    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        """Remove the function that keeps the learning rate of SimSiam's and NNSiam's predictor constant.

        The function is bound to the scheduler of this run. A resumed run has its own scheduler.
        """
        for state in checkpoint.get("lr_schedulers", ()):
            state.pop("get_lr", None)

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """Restore the random states and the momentum of the run that is resumed."""
        if self.resumed is None:
            return
        state, self.resumed = self.resumed, None
        if world_size() == 1:  # only the first process writes its state
            set_random_states(state["random"])
        if state["tau"] is not None:
            module.momentum_updater.cur_tau, module.last_step = state["tau"], state["last_step"]
        loop = trainer.fit_loop
        loader = getattr(loop, "_combined_loader", None)
        if getattr(loader, "_iterator", None) is not None and loop.epoch_loop.restarting:
            # Lightning 2 has already begun to iterate and drawn a seed; draw one here to match.
            torch.empty((), dtype=torch.int64).random_()

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        """Take over the writing of checkpoints."""
        self.module, self.saving = module, Saving(module)
        self.saving.take_over(trainer)
        self.continuing = Continuing(self.host, trainer)
        let_processes_end(trainer.strategy)

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Continue by the config's schedule, which may differ from the checkpoint's."""
        if not trainer.global_step or self.continuing is None:
            return
        state = self.resumed or {}
        line = self.continuing.go_on(trainer, module, state.get("schedule") or {})
        if line is None:
            return
        if state.get("tau") is not None:
            state["tau"] = module.momentum_updater.cur_tau
        if rank() == 0:
            say(line)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        """Keep the loss of a step; look at all that were kept when it is time."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if not isinstance(loss, Tensor):
            return
        values = [loss, *module.last_terms.values()]
        stacked = torch.stack([v.detach().to(loss.device, torch.float32).reshape(()) for v in values])
        self.unseen.append((trainer.global_step, stacked, list(module.last_terms)))
        self.wait -= 1
        if self.wait == 0 or trainer.is_last_batch:
            self._look(module)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Stop with an error if the weights are not finite at the end of the training."""
        self._look(module)
        if not all_finite(module):
            self._stop(module, "its weights are not finite at the end")

    def _look(self, module: Any) -> None:
        """Read the losses since the last look, tell the first that is not finite, and stop all processes.

        Every process must call this at the same step.
        """
        self._read_losses(module)
        if not self.printed:
            self._print_first(-max_over_processes(-self.first[0], module))
        worst = max_over_processes(self.bad, module)
        if worst >= self.patience:
            self._stop(module, f"{worst} steps in a row had no finite loss")
        self.wait = min(self.patience - worst, LONGEST_WAIT)

    def _read_losses(self, module: Any) -> None:
        """Count the steps without a finite loss, and describe the first one of this process."""
        unseen, self.unseen = self.unseen, []
        if not unseen:
            return
        values = iter(torch.cat([stacked for _, stacked, _ in unseen]).tolist())
        for step, _, names in unseen:
            loss, *terms = (next(values) for _ in range(1 + len(names)))
            if math.isfinite(loss) or has_no_targets(module):
                self.bad = 0
                continue
            self.bad += 1
            if self.first[0] < NEVER:
                continue
            found = zip(names, terms, strict=True)
            guilty = [f"{name} = {value:g}" for name, value in found if not math.isfinite(value)]
            source = "its term " + ", ".join(guilty) if guilty else "the method's own loss"
            line = f"Step {step} of {type(module).__name__}: the loss is {loss:g}; it came from {source}."
            self.first = step * world_size() + rank(), line

    def _print_first(self, earliest: int) -> None:
        """Print the message about the first loss that is not finite, on the process that has it."""
        self.printed = earliest < NEVER
        if self.printed and self.first[0] == earliest:
            write_line(self.first[1])

    def _stop(self, module: Any, why: str) -> None:
        kept = f"the last finite checkpoint is {self.kept}" if self.kept else "no checkpoint was written"
        stop(
            module,
            DivergenceError(f"{type(module).__name__} has diverged: {why}; {kept}. Lower optimizer.lr."),
        )

    @property
    def kept(self) -> Path | None:
        """Return the last checkpoint that was written."""
        return self.saving.kept if self.saving else None

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        """Print one line where solo-learn's script would show a traceback.

        The causes are an image that cannot be read and another process that has ended.
        """
        if world_size() == 1 and not self.printed:
            with suppress(RuntimeError):  # a device that has failed cannot be read
                self._read_losses(module)
                self._print_first(self.first[0])
        if not is_lost_process(exception):
            if isinstance(exception, DimregError) or not trainer.global_step:
                end_script(exception, "train")
            return
        for logger in trainer.loggers:
            logger.finalize("failed")
        kept = f"the last checkpoint is {self.kept}" if self.kept else "the files written so far are kept"
        why = f"another of the {world_size()} processes of this training has ended; {kept}."
        stop(module, TrainingError(f"{type(module).__name__} cannot continue: {why}"), exception)


def has_no_targets(module: Any) -> bool:
    """Return whether DeepCluster v2 is in its first epoch, in which it has no targets.

    The mean loss over no target is NaN, and its gradient is zero.
    """
    assignments = getattr(module, "assignments", None)
    return isinstance(assignments, Tensor) and bool((assignments < 0).all())
