"""Count the steps of a training before it starts, and say if they are too few."""

from __future__ import annotations

import math
from typing import NamedTuple

from omegaconf import DictConfig

from solo_dimreg.config.values import device_count
from solo_dimreg.errors import ConfigError, first_process, warn, write_line

# Fewer steps in total are always reported; fewer steps per epoch only without many epochs.
# The shortest trainings that we ship have 132 steps (the digits) and 11 steps an epoch.
FEW = 100
FEW_IN_EPOCH, ENOUGH = 10, 1000


class Steps(NamedTuple):
    """The optimizer's steps in a training: in each epoch, and in total."""

    per_epoch: int
    total: int


def count_steps(settings: DictConfig, images: int) -> Steps:
    """Count the optimizer steps of a config, as Lightning does.

    solo-learn drops the last, incomplete batch of an epoch. Each of ``devices`` times ``num_nodes`` processes
    has an equal share of the images, rounded up.
    """
    processes = device_count(settings.devices) * (settings.get("num_nodes") or 1)
    batches = math.ceil(images / processes) // settings.optimizer.batch_size
    limit = settings.get("limit_train_batches")
    if isinstance(limit, float):
        batches = int(batches * limit)
    elif limit is not None:
        batches = min(batches, limit)
    per_epoch = math.ceil(batches / (settings.get("accumulate_grad_batches") or 1))
    total = per_epoch * settings.max_epochs
    most = settings.get("max_steps") or -1
    return Steps(per_epoch, min(total, most) if most > 0 else total)


def images_of_process(settings: DictConfig, images: int) -> int:
    """Return the number of images that every process of a training has at least."""
    return images // (device_count(settings.devices) * (settings.get("num_nodes") or 1))


def lower_batch(settings: DictConfig, images: int, size: int) -> None:
    """Lower ``optimizer.batch_size``, in place, if no batch would be full, and say so in one line.

    It becomes ``size``, or with fewer images in a process their number.
    """
    share, default = images_of_process(settings, images), settings.optimizer.batch_size
    lowered = min(share, size)
    if default <= share or lowered < 2:  # a batch of one image is refused elsewhere
        return
    settings.optimizer.batch_size = lowered
    if first_process():
        write_line(
            f"optimizer.batch_size {default} becomes {lowered}: a process has only {share} training images."
        )


def check_steps(settings: DictConfig, images: int, what: str = "training") -> Steps:
    """Return the steps of a training, and warn in one line of too few; ``what`` names the training there.

    Raises:
        ConfigError: No batch would be full, so that there is no step.
    """
    share = images_of_process(settings, images)
    size = settings.optimizer.batch_size
    if share < size:
        raise ConfigError(
            f"optimizer.batch_size: {size} is more than the {share} training images of a process, so that no "
            "batch would be full; make it smaller."
        )
    steps = count_steps(settings, images)
    if not steps.per_epoch:
        limit, batches = settings.get("limit_train_batches"), share // size
        raise ConfigError(
            f"limit_train_batches: {limit!r} of {batches} batches is no batch; it must be at least "
            f"{1 / batches:.3g}, or a whole number of batches."
        )
    if steps.total < FEW or (steps.per_epoch < FEW_IN_EPOCH and steps.total < ENOUGH):
        warn(
            f"The {what} has only {steps.total} steps, {steps.per_epoch} per epoch ({images} images, "
            f"optimizer.batch_size={size}, max_epochs={settings.max_epochs}), too few to learn much; "
            "make optimizer.batch_size smaller or max_epochs larger."
        )
    return steps
