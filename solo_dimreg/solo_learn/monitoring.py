"""The training's side of the monitor: rollback, remedy, and the same training images at every look."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import open_dict
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from solo_dimreg.config.values import plain
from solo_dimreg.distributed import rank, world_size
from solo_dimreg.errors import ConfigError, warn
from solo_dimreg.solo_learn.base import Host
from solo_dimreg.solo_learn.checkpoints import read_checkpoint
from solo_dimreg.solo_learn.divergence import DivergenceCallback
from solo_dimreg.solo_learn.run_summary import RunSummary
from solo_dimreg.solo_learn.saving import Checkpointer

KEPT_BYTES = 2**28  # the fixed images are read again at each look if they need more memory


class MonitorSupport:
    """Does what the monitor of a config cannot do by itself in a training of a method of solo-learn."""

    def __init__(self, host: Host, divergence: DivergenceCallback) -> None:
        self.host, self.divergence = host, divergence

    def roll_back(self, trainer: Any, module: Any, good: str) -> str | None:
        """Restore weights, buffers and optimizer of a checkpoint on all processes, and halve the rates.

        The epochs, the schedule, the momentum and the random states go on: the training gets no longer, and
        does not repeat the batches before the collapse.

        Returns:
            What was done; None if the checkpoint cannot be read.
        """
        content = None
        if rank() == 0:  # the others may not see its disk
            try:
                read = read_checkpoint(Path(good))
                content = {name: read[name] for name in ("state_dict", "optimizer_states")}
            except ConfigError as error:
                warn(f"monitor.alarm: {error}")
        content = trainer.strategy.broadcast(content)
        if content is None or self.divergence.continuing is None:
            return None
        module.load_state_dict(content["state_dict"])
        module.loaded = ()  # the lazy buffers are in place already
        for optimizer, saved in zip(trainer.optimizers, content["optimizer_states"], strict=True):
            now = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": saved["state"], "param_groups": now})
        continuing = self.divergence.continuing
        continuing.scale(trainer, 0.5)
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        _record(trainer, {"action": "rollback", "checkpoint": good, "rate_factor": continuing.factor})
        return (
            f"Weights, buffers and optimizer are those of {good} again, and all learning rates are halved, "
            f"now {rate:g}"
        )

    def add_remedy(self, trainer: Any, module: Any, first_epoch: int) -> str:
        """Let the terms of the remedy take part from an epoch on, and write them into ``args.json``.

        The warm-up of a term counts from that epoch on, which is counted from 0.

        Returns:
            What was done.
        """
        remedy = module.blocks.remedy
        for name, settings in remedy.items():
            module.regularizers[name].warmup_epochs = first_epoch + settings.warmup_epochs
        for callback in trainer.callbacks:
            if isinstance(callback, Checkpointer):
                self._write_remedy(callback, module)
                callback.save_args(trainer)
        said = ", ".join(
            f"{name} of the {term.where} with weight {term.weight:g}"
            + (f" (after {term.warmup_epochs} epochs of warm-up)" if term.warmup_epochs else "")
            for name, term in remedy.items()
        )
        _record(trainer, {"action": "remedy", "terms": [*remedy], "from_epoch": first_epoch})
        return f"From now on the loss has the remedy: {said}."

    def _write_remedy(self, checkpointer: Any, module: Any) -> None:
        """Put the terms into the ``regularizers:`` of the settings that a checkpointer writes."""
        if self.host.generation == "current":
            with open_dict(checkpointer.cfg):
                checkpointer.cfg.update(self._with_remedy(plain(checkpointer.cfg), module))
        else:
            arguments = vars(checkpointer.args)
            changed = self._with_remedy(arguments, module)
            arguments.update(changed)
            arguments["config"] = {**arguments["config"], **changed}

    def _with_remedy(self, settings: Mapping[str, Any], module: Any) -> dict[str, Any]:
        """Return the blocks of a run's settings in which the remedy is a term as any other."""
        alarm = dict(settings["monitor"]["alarm"])
        terms = {
            name: {**given, "warmup_epochs": module.regularizers[name].warmup_epochs}
            for name, given in alarm.pop("remedy", {}).items()
        }
        alarm["action"] = "stop"  # the remedy is in the loss already
        given = settings.get("regularizers") or {}
        # The method's own term keeps its place: another order of the sum would be rounded otherwise.
        before = {name: given.get(name) or {} for name in self.host.terms(settings["method"], given)}
        return {"regularizers": {**before, **terms}, "monitor": {**settings["monitor"], "alarm": alarm}}

    def plain_images(self, trainer: Any, module: Any, size: int) -> Iterable[Tensor] | str:
        """Return this process's part of ``size`` training images in batches, or why there are none."""
        config = self.host.config_of(module)
        if config is None or "augmentations" not in config:
            return "this training has no config with augmentations"
        loader = getattr(trainer.train_dataloader, "loaders", trainer.train_dataloader)
        dataset = _with_transform(getattr(loader, "dataset", None), self.host.whole_image(config))
        try:
            first = None if dataset is None else dataset[0][1]
        except Exception as error:  # a data set of the user's
            return f"a training image cannot be read without augmentation ({error})"
        if not isinstance(first, Tensor) or first.dim() != 3:
            return "the training images cannot be had without augmentation"
        chosen = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:size]
        share = len(chosen) // world_size()
        part = Subset(dataset, chosen[rank() * share :][:share].tolist())
        # A generator of its own: otherwise each look would draw a seed from the training's.
        loader = DataLoader(part, module.batch_size, collate_fn=_images_of, generator=torch.Generator())
        if first.nbytes * share > KEPT_BYTES:
            return loader
        with torch.random.fork_rng(devices=[]):  # a data set of the user's may draw numbers
            return list(loader)


def _images_of(items: Sequence[Any]) -> Tensor:
    return torch.stack([image for _, image, *_ in items])


def _with_transform(dataset: Any, transform: Callable[..., Tensor]) -> Any:
    """Return a copy of a map-style data set with another transform; return None if it has none."""
    if isinstance(dataset, Subset):
        inner = _with_transform(dataset.dataset, transform)
        return None if inner is None else Subset(inner, dataset.indices)
    if not hasattr(dataset, "transform") or not hasattr(dataset, "__len__"):
        return None
    dataset = copy.copy(dataset)
    dataset.transform = transform
    return dataset


def _record(trainer: Any, event: dict[str, Any]) -> None:
    place = {"epoch": trainer.current_epoch, "step": trainer.global_step}
    for callback in trainer.callbacks:
        if isinstance(callback, RunSummary):
            callback.add_alarm({**place, **event})
