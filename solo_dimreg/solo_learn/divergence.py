"""A divergence callback that stops a training that has diverged, and keeps its checkpoints whole and finite.

Every method brings the callback, so that it also works in solo-learn's own scripts::

    divergence: {patience: 10}

The training stops after ``patience`` steps in a row whose loss is not finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from solo_dimreg.solo_learn.continuing import Continuing, random_states, set_random_states
from solo_dimreg.solo_learn.mixins import Mixin
from solo_dimreg.solo_learn.run_summary import say
from solo_dimreg.solo_learn.saving import Saving, all_finite
from solo_dimreg.solo_learn.scripts import end_script

if TYPE_CHECKING:
    from solo_dimreg.solo_learn.base import Host

NEVER = 2**62


class DivergenceCallback(Mixin):
    """The divergence callback.

    Args:
        host: The solo-learn in use.
        patience: The number of steps in a row without a finite loss that stops the training.
    """

    state_key = "Guard"  # checkpoints store its state under this name

    def __init__(self, host: Host, patience: int) -> None:
        super().__init__()
        self.host, self.patience = host, patience
        self.bad = 0  # steps in a row without a finite loss, until now
        self.printed = self.all_printed = False
        self.first = (NEVER, "")  # the step and process as one number, and the message
        self.saving: Saving | None = None
        self.continuing: Continuing | None = None
        self.resumed: dict[str, Any] | None = None
        self.module: Any = None
        # The loss of the previous step: a GPU has computed it already, so reading it does not wait.
        self.previous: tuple[int, Tensor, dict[str, Tensor]] | None = None

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
        """Check the loss of a step."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if not isinstance(loss, Tensor):
            return
        if loss.device.type != "cpu" and self.previous is not None:
            self._check_loss(module, *self.previous)
        self.previous = trainer.global_step, loss.detach(), dict(module.last_terms)
        if loss.device.type == "cpu":
            self._check_loss(module, *self.previous)
        self._stop_together(trainer, module)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Stop with an error if the weights are not finite at the end of the training."""
        if not all_finite(module):
            self._print_first(module)
            self._stop(module, "its weights are not finite at the end")

    def _check_loss(self, module: Any, step: int, loss: Tensor, terms: dict[str, Tensor]) -> None:
        if bool(torch.isfinite(loss)) or has_no_targets(module):
            self.bad = 0
            return
        self.bad += 1
        if self.printed:
            return
        self.printed = True
        guilty = [f"{name} = {float(value):g}" for name, value in terms.items() if not torch.isfinite(value)]
        source = "its term " + ", ".join(guilty) if guilty else "the method's own loss"
        line = f"Step {step} of {name_of(module)}: the loss is {float(loss):g}; it came from {source}."
        if world_size() == 1:
            write_line(line)
        else:
            self.first = step * world_size() + rank(), line

    def _print_first(self, module: Any) -> None:
        """Print the message from the process that saw the first NaN; every process must call this."""
        if world_size() == 1 or self.all_printed:
            return
        earliest = -max_over_processes(-self.first[0], module)
        self.all_printed = earliest < NEVER
        if self.all_printed and self.first[0] == earliest:
            write_line(self.first[1])

    def _stop_together(self, trainer: Any, module: Any) -> None:
        """Stop all processes at the same step, although one may see the NaN a step earlier."""
        worst = self.bad
        if world_size() > 1:
            if (trainer.global_step % self.patience) != 0:
                return
            self._print_first(module)
            worst = max_over_processes(worst, module)
        if worst >= self.patience:
            self._stop(module, f"{worst} steps in a row had no finite loss")

    def _stop(self, module: Any, why: str) -> None:
        kept = f"the last finite checkpoint is {self.kept}" if self.kept else "no checkpoint was written"
        stop(module, DivergenceError(f"{name_of(module)} has diverged: {why}; {kept}. Lower optimizer.lr."))

    @property
    def kept(self) -> Path | None:
        """Return the last checkpoint that was written."""
        return self.saving.kept if self.saving else None

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        """Print one line where solo-learn's script would show a traceback.

        The causes are an image that cannot be read and another process that has ended.
        """
        if not is_lost_process(exception):
            if isinstance(exception, DimregError) or not trainer.global_step:
                end_script(exception, "train")
            return
        for logger in trainer.loggers:
            logger.finalize("failed")
        kept = f"the last checkpoint is {self.kept}" if self.kept else "the files written so far are kept"
        why = f"another of the {world_size()} processes of this training has ended; {kept}."
        stop(module, TrainingError(f"{name_of(module)} cannot continue: {why}"), exception)


def has_no_targets(module: Any) -> bool:
    """Return whether DeepCluster v2 is in its first epoch, in which it has no targets.

    The mean loss over no target is NaN, and its gradient is zero.
    """
    assignments = getattr(module, "assignments", None)
    return isinstance(assignments, Tensor) and bool((assignments < 0).all())


def name_of(module: Any) -> str:
    """Return the name of the method's class."""
    return type(module).__name__
