"""Refuse settings that are each allowed but do not fit together."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from omegaconf import DictConfig

from solo_dimreg.config.blocks import REMEDY
from solo_dimreg.config.parsing import check_keys
from solo_dimreg.config.schema import TORCH_OPTIMIZERS, Common, Optimizer, Pretraining
from solo_dimreg.config.values import base_name, device_count, plain
from solo_dimreg.errors import ConfigError, unknown
from solo_dimreg.plugins import registered

if TYPE_CHECKING:
    from solo_dimreg.solo_learn import Host

# Methods of solo-learn whose queue takes whole batches.
QUEUES = ("all4one", "mocov2plus", "nnbyol", "nnclr", "nnsiam", "ressl")
# Methods of solo-learn that accept another number of large crops than two.
ANY_CROPS = ("mae", "wmse")
# Keys of method_kwargs in solo-learn's own configs that nothing reads.
IDLE_OPTIONS = ("base_tau_momentum", "final_tau_momentum", "momentum_classifier", "temperature")
# Endings of names in method_kwargs whose values must be whole numbers; methods choose their own names.
SIZES = ("_dim", "_size", "_iters", "num_prototypes", "_depth", "num_heads", "num_groups")


def check_method(host: Host, settings: Pretraining) -> None:
    """Raise a ConfigError for a setting that the method cannot use on any machine."""
    if settings.method not in host.trainable:
        raise ConfigError(f"method: {unknown('method', settings.method, host.trainable)}")
    _check_options(host, settings)
    if settings.optimizer.batch_size < 2:
        raise ConfigError("optimizer.batch_size: 1 is not allowed; for batch normalization it must be >= 2.")
    views = settings.augmentations
    large = sum(view.num_crops for view in views if view.crop_size == views[0].crop_size)
    ours = issubclass(host.methods[settings.method], host.Method)
    if large != 2 and not ours and base_name(settings.method) not in ANY_CROPS:
        raise ConfigError(
            f"augmentations: num_crops give {large} large crops; for {settings.method} it must be 2."
        )


def check_agreement(host: Host, settings: Common) -> None:
    """Raise a ConfigError for settings that contradict each other or would fail in the training."""
    scheduler = settings.scheduler
    if scheduler.name == "step" and not scheduler.lr_decay_steps:
        raise ConfigError(
            f"scheduler.lr_decay_steps: {scheduler.lr_decay_steps!r} is not allowed with "
            "scheduler.name=step; it must be a list of steps, such as [60, 80]."
        )
    if isinstance(settings, Pretraining):
        _check_neighbours(host, settings)
        _check_sizes(settings)
    _try_optimizer(settings.optimizer)


def idle_settings(host: Host, config: DictConfig, settings: Pretraining) -> Iterator[str]:
    """Yield one line per setting that has no effect because the training is too short or too small.

    The settings are those of the config, which shows what it leaves to the method.
    """
    epochs, warmup = settings.max_epochs, settings.scheduler.warmup_epochs
    if settings.scheduler.name == "warmup_cosine" and warmup >= epochs:
        yield (
            f"scheduler.warmup_epochs: {warmup:g} is not shorter than the training (max_epochs={epochs}): "
            "the learning rate never reaches optimizer.lr."
        )
    given = plain(config.get("regularizers")) or {}
    for name, options in host.terms(settings.method, given).items():
        term = settings.regularizers.get(name)
        waits = (options or {}).get("warmup_epochs", term.warmup_epochs if term else 0)
        if waits >= epochs:
            yield (
                f"regularizers.{name}.warmup_epochs: {waits} is not shorter than the training "
                f"(max_epochs={epochs}): the term never takes part."
            )
        k, most = (options or {}).get("k"), _features(host, settings) - 1
        if isinstance(k, int) and k > most:
            yield (
                f"regularizers.{name}.k: {k}, the default of {settings.method}, is more than the {most} "
                "other features of a step: the neighbourhood is all of them."
            )


def _check_options(host: Host, settings: Pretraining) -> None:
    """Refuse options that the method would ignore or cannot use.

    Our own methods refuse unknown options themselves, and the options of another package's method have
    unknown meanings.
    """
    name, options = settings.method, settings.method_kwargs
    brought = registered("methods", host=host).get(name)
    if brought is None or brought.distribution == "solo-dimreg":
        for key, value in options.items():
            for number in value if isinstance(value, list | tuple) else [value]:
                if wanted := _wanted(key, number):
                    raise ConfigError(f"method_kwargs.{key}: {value!r} is not allowed; it must be {wanted}.")
    if issubclass(host.methods[name], host.Method):
        return
    valid = set(host.method_options(name))
    if valid:
        known = {key: value for key, value in options.items() if key not in IDLE_OPTIONS}
        check_keys("method_kwargs", known, valid, owner=name)
    for key, value in options.items():
        if isinstance(value, str) or (isinstance(value, float) and not math.isfinite(value)):
            raise ConfigError(
                f"method_kwargs.{key}: {value!r} is not allowed; it must be a number, true or false."
            )


def _wanted(name: str, number: object) -> str:
    """Return what an option of a method must be, by its name; return "" if it is that or not known."""
    usable = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
    value = float(number) if usable else math.nan  # type: ignore[arg-type]
    if name.endswith(SIZES):
        # A queue of 0 is no queue, for SwAV; others are refused with the size of the batch.
        fits = isinstance(number, int) and value >= (0 if name == "queue_size" else 1)
        return "" if fits else "a whole number >= 1"
    if "temperature" in name and not name.endswith("_epochs"):
        return "" if value > 0 else "a number > 0"
    if name.endswith(("weight", "lamb")):
        return "" if value >= 0 else "a number >= 0"
    if name == "mask_ratio":
        return "" if 0 < value < 1 else "a number above 0 and below 1"
    return ""


def _batch(settings: Common) -> int:
    """Return the number of images in a step, over all processes."""
    return settings.optimizer.batch_size * device_count(settings.devices) * settings.num_nodes


def _features(host: Host, settings: Pretraining) -> int:
    """Return the number of features in a step, over all processes and both encoders.

    These features are each other's neighbours.
    """
    encoders = 2 if issubclass(host.methods[settings.method], host.momentum_method) else 1
    views = settings.augmentations
    largest = max(view.crop_size for view in views)
    return encoders * _batch(settings) * sum(view.num_crops for view in views if view.crop_size == largest)


def _check_neighbours(host: Host, settings: Pretraining) -> None:
    remedy = {f"{REMEDY}.{name}": term for name, term in settings.remedy.items()}
    terms = {f"regularizers.{name}": term for name, term in settings.regularizers.items()} | remedy
    for place, term in terms.items():
        k, features = term.options.get("k"), _features(host, settings)
        if isinstance(k, int) and k >= features:
            raise ConfigError(
                f"{place}.k: {k} is not allowed; it must be at most {features - 1}, one less "
                f"than the features of a step ({_batch(settings)} images of all processes, in large crops)."
            )


def _check_sizes(settings: Pretraining) -> None:
    """Refuse sizes that solo-learn asserts without a message, or that fail in the first step."""
    method, options = base_name(settings.method), settings.method_kwargs
    batch, all_images = settings.optimizer.batch_size, _batch(settings)
    queue, slice_size = options.get("queue_size"), options.get("whitening_size")
    wanted = ""
    if isinstance(queue, int) and method == "swav" and 0 < queue < all_images:
        key, value, wanted = "queue_size", queue, f"0 or at least the {all_images} images of a step"
    elif isinstance(queue, int) and method in QUEUES and (queue == 0 or queue % all_images):
        key, value, wanted = "queue_size", queue, f"a multiple of the {all_images} images of a step"
    elif isinstance(slice_size, int) and method == "wmse" and batch % slice_size:
        key, value, wanted = "whitening_size", slice_size, f"a divisor of optimizer.batch_size={batch}"
    if wanted:
        raise ConfigError(f"method_kwargs.{key}: {value!r} is not allowed; it must be {wanted}.")


def _try_optimizer(optimizer: Optimizer) -> None:
    """Build torch's optimizer, which refuses options that do not fit together; without a GPU, step it."""
    name, given = optimizer.name, optimizer.options
    options = dict(given)
    if name in ("sgd", "lars"):
        options.setdefault("momentum", 0.9)  # as both solo-learns do
    if name == "lars":
        options = {key: options[key] for key in ("momentum", "dampening", "nesterov") if key in options}
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    try:
        made = TORCH_OPTIMIZERS.get(name, torch.optim.SGD)([weight], lr=1e-3, **options)
        if not torch.cuda.is_available():
            made.step()
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ConfigError(
            f"optimizer.kwargs: {given!r} is not allowed; it must be options that "
            f"{name} accepts together ({reason})."
        ) from error
