"""Continue a resumed training by the schedule of its config, also with another length or other settings.

A checkpoint holds the schedule of the training that wrote it. Lightning restores the length and the learning
rates of that schedule over those of the config. A training of 3 epochs that is prolonged to 6 would end its
schedule at the old length, climb from 0 to the full learning rate and end at half of it. solo-learn computes
the momentum (tau) from the new length, but only from the second step on.
"""

from __future__ import annotations

import copy
import math
import random
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from solo_dimreg.solo_learn.base import Host

# Entries of a scheduler's state that hold its position; names with an underscore do so too.
PLACE = ("last_epoch", "verbose", "get_lr")
# Names of learning rates in the options of optimizers and in the state of schedulers. All schedules of
# solo-learn are linear in them together: halved rates give half of the schedule, exactly.
RATES = ("lr", "initial_lr", "base_lrs", "_last_lr", "eta_min", "warmup_start_lr", "lrs_to_replace")


class Continuing:
    """The optimizers and schedulers that the config of a training asks for, for use after a resumption.

    Nothing is changed if the checkpoint has the same ones: the training then stays the same to the bit.

    Args:
        trainer: Lightning's trainer, after it has made the optimizers and before it restores a checkpoint.
    """

    def __init__(self, host: Host, trainer: Any) -> None:
        self.host, self.factor = host, 1.0
        self.options = [
            [_without(group, ("params",)) for group in optimizer.param_groups]
            for optimizer in trainer.optimizers
        ]
        self.schedules = [
            _without(config.scheduler.state_dict(), ("get_lr",)) for config in trainer.lr_scheduler_configs
        ]

    def state(self, trainer: Any, module: Any) -> dict[str, Any]:
        """Return the length of the training and the lead of its schedule over its steps, for a checkpoint.

        The schedule leads after a resumption with fewer images per epoch than before, and lags with more.
        """
        factor = {} if self.factor == 1 else {"factor": self.factor}
        return {**_length(trainer), "ahead": module.steps_ahead, **factor}

    def scale(self, trainer: Any, factor: float, restored: bool = False) -> None:
        """Multiply all learning rates of the schedule, from here on and after a resumption.

        Args:
            restored: Whether the optimizers and schedulers have it already, from a checkpoint.
        """
        self.factor *= factor
        configured = [*self.schedules, *(group for groups in self.options for group in groups)]
        live = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        live += [vars(config.scheduler) for config in trainer.lr_scheduler_configs]
        for state in configured if restored else configured + live:
            state.update(_scaled(state, factor))
        for config in trainer.lr_scheduler_configs:  # the constant rate of SimSiam's and NNSiam's predictor
            keywords = getattr(config.scheduler.get_lr, "keywords", {})
            keywords.update(_scaled(keywords, factor))

    def go_on(self, trainer: Any, module: Any, saved: Mapping[str, Any]) -> str | None:
        """Apply the config's schedule from the epoch of a restored checkpoint; return a line for the user.

        Return None if the checkpoint has the same schedule as the config. ``saved`` is what :meth:`state`
        wrote into it; it is empty if solo-learn alone did.
        """
        now = _length(trainer)
        before = {**now, "ahead": 0, **saved}
        self.scale(trainer, before.get("factor", 1.0), restored=True)
        done = trainer.global_step + before["ahead"]
        steps = done
        if before["steps_per_epoch"] != now["steps_per_epoch"]:
            steps = round(done * now["steps_per_epoch"] / before["steps_per_epoch"])
        module.steps_ahead = steps - trainer.global_step
        updater = getattr(module, "momentum_updater", None)
        if updater is not None and "update_tau" not in vars(updater):
            updater.update_tau = _from_where_it_is(updater.update_tau, module)
        changed = any(before[key] != now[key] for key in now)
        if not (self._take_options(trainer) or self._has_other_schedules(trainer) or changed):
            return None
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self._take_schedules(trainer, steps)
        if updater is not None:
            updater.update_tau(*self.host.momentum_steps(trainer))
        first = trainer.optimizers[0].param_groups[0]["lr"]
        length = f" of {saved['epochs']}" if "epochs" in saved else ""
        if before["epochs"] != now["epochs"]:
            length += f", now of {now['epochs']}"
        return (
            f"resumed after epoch {trainer.current_epoch}{length}: from step {steps} of {now['steps']} on "
            f"the learning rate follows the config's schedule, at {first:g}; the checkpoint's is {rate:g}."
        )

    def _take_options(self, trainer: Any) -> bool:
        """Give the optimizers the config's options; return whether the checkpoint had others."""
        changed = False
        scheduled = {id(config.scheduler.optimizer) for config in trainer.lr_scheduler_configs}
        for optimizer, groups in zip(trainer.optimizers, self.options, strict=True):
            for group, options in zip(optimizer.param_groups, groups, strict=True):
                fixed = _without(options, ("lr",) if id(optimizer) in scheduled else ())
                changed |= any(group.get(name) != value for name, value in fixed.items())
                group.update(fixed)
        return changed

    def _has_other_schedules(self, trainer: Any) -> bool:
        return any(
            state.get(name) != value
            for config, schedule in zip(trainer.lr_scheduler_configs, self.schedules, strict=True)
            for state in [config.scheduler.state_dict()]
            for name, value in schedule.items()
            if name not in PLACE and not name.startswith("_")
        )

    def _take_schedules(self, trainer: Any, steps: int) -> None:
        """Run the config's schedules from their start, since solo-learn defines them by their steps."""
        for config, schedule in zip(trainer.lr_scheduler_configs, self.schedules, strict=True):
            scheduler = config.scheduler
            scheduler.load_state_dict(copy.deepcopy(schedule))
            number = trainer.optimizers.index(scheduler.optimizer)
            for group, options in zip(scheduler.optimizer.param_groups, self.options[number], strict=True):
                group["lr"] = options["lr"]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the missing optimizer steps in between
                for _ in range(steps if config.interval == "step" else trainer.current_epoch):
                    scheduler.step()


def _scaled(state: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """Return the learning rates of a state, multiplied."""
    rates = {name: state[name] for name in RATES if name in state}
    return {
        name: [each * factor for each in rate] if isinstance(rate, list) else rate * factor
        for name, rate in rates.items()
    }


def _length(trainer: Any) -> dict[str, Any]:
    """Return the number of epochs, of steps, and of steps per epoch (infinite for a stream)."""
    batches = trainer.num_training_batches
    endless = math.isinf(batches)
    return {
        "epochs": trainer.max_epochs,
        "steps": trainer.estimated_stepping_batches,
        "steps_per_epoch": batches if endless else math.ceil(batches / trainer.accumulate_grad_batches),
    }


def _from_where_it_is(update: Any, module: Any) -> Any:
    """Return solo-learn's ``update_tau`` with the trainer's step count moved by the schedule's lead."""

    def updated(cur_step: int, max_steps: int) -> None:
        done = module.trainer.global_step
        update(cur_step * (done + module.steps_ahead) / done if done else cur_step, max_steps)

    return updated


def _without(options: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: copy.deepcopy(value) for name, value in options.items() if name not in names}


def random_states() -> dict[str, Any]:
    """Return the states of Python's, NumPy's and torch's generators, as tensors and numbers only."""
    version, python, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()
    return {
        "python": [version, list(python), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Set the generators to the states from :func:`random_states`."""
    version, python, gauss = states["python"]
    random.setstate((version, tuple(python), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"].cpu())
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
