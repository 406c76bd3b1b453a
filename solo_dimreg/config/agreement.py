"""Refuse settings that are each allowed but do not fit together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig

from solo_dimreg.config.values import base_name, device_count, plain
from solo_dimreg.errors import ConfigError

if TYPE_CHECKING:
    from solo_dimreg.solo_learn import Host

# Methods of solo-learn whose queue takes whole batches.
QUEUES = ("all4one", "mocov2plus", "nnbyol", "nnclr", "nnsiam", "ressl")


def check_agreement(host: Host, settings: DictConfig) -> None:
    """Refuse settings that contradict each other or would fail after the training has begun.

    Args:
        host: The solo-learn in use.
        settings: A config of the pretraining or of the probe that has passed its schema.

    Raises:
        ConfigError: The message names the key, its value and the setting that it has to fit.
    """
    content = plain(settings)
    scheduler = content["scheduler"]
    if scheduler["name"] == "step" and not scheduler.get("lr_decay_steps"):
        raise ConfigError(
            f"scheduler.lr_decay_steps: {scheduler.get('lr_decay_steps')!r} is not allowed with "
            "scheduler.name=step; it must be a list of steps, such as [60, 80]."
        )
    _check_neighbours(host, content)
    _check_sizes(content)
    _try_optimizer(content["optimizer"])


def idle_settings(host: Host, settings: DictConfig) -> Iterator[str]:
    """Yield one line per setting that has no effect because the training is too short or too small."""
    content = plain(settings)
    epochs = content["max_epochs"]
    scheduler = content["scheduler"]
    warmup = scheduler.get("warmup_epochs", 10)
    if scheduler["name"] == "warmup_cosine" and warmup >= epochs:
        yield (
            f"scheduler.warmup_epochs: {warmup} is not shorter than the training (max_epochs={epochs}): "
            "the learning rate never reaches optimizer.lr."
        )
    given = content.get("regularizers") or {}
    for name, options in host.terms(settings.method, given).items():
        waits = (options or {}).get("warmup_epochs", 0)
        if isinstance(waits, int) and waits >= epochs:
            yield (
                f"regularizers.{name}.warmup_epochs: {waits} is not shorter than the training "
                f"(max_epochs={epochs}): the term never takes part."
            )
        k, most = (options or {}).get("k"), _features(host, content) - 1
        if isinstance(k, int) and k > most:
            yield (
                f"regularizers.{name}.k: {k}, the default of {settings.method}, is more than the {most} "
                "other features of a step: the neighbourhood is all of them."
            )


def _batch(content: Mapping[str, Any]) -> int:
    """Return the number of images in a step, over all processes."""
    processes = device_count(content["devices"]) * (content.get("num_nodes") or 1)
    return content["optimizer"]["batch_size"] * processes


def _features(host: Host, content: Mapping[str, Any]) -> int:
    """Return the number of features in a step, over all processes and both encoders.

    These features are each other's neighbours.
    """
    kind = host.methods.get(str(content.get("method")))
    encoders = 2 if kind is not None and issubclass(kind, host.momentum_method) else 1
    views = content["augmentations"]
    largest = max(view["crop_size"] for view in views)
    return (
        encoders * _batch(content) * sum(view["num_crops"] for view in views if view["crop_size"] == largest)
    )


def _check_neighbours(host: Host, content: Mapping[str, Any]) -> None:
    for name, options in (content.get("regularizers") or {}).items():
        k, features = (options or {}).get("k"), _features(host, content)
        if isinstance(k, int) and k >= features:
            raise ConfigError(
                f"regularizers.{name}.k: {k} is not allowed; it must be at most {features - 1}, one less "
                f"than the features of a step ({_batch(content)} images of all processes, in large crops)."
            )


def _check_sizes(content: Mapping[str, Any]) -> None:
    """Refuse sizes that solo-learn asserts without a message, or that fail in the first step."""
    method, options = base_name(content.get("method") or ""), content.get("method_kwargs") or {}
    batch, all_images = content["optimizer"]["batch_size"], _batch(content)
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


def _try_optimizer(optimizer: Mapping[str, Any]) -> None:
    """Build torch's optimizer, which refuses options that do not fit together.

    Without a GPU, the optimizer also makes a step.
    """
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    name, options = optimizer["name"], dict(optimizer.get("kwargs") or {})
    if name in ("sgd", "lars"):
        options.setdefault("momentum", 0.9)  # as both solo-learns do
    if name == "lars":
        options = {key: options[key] for key in ("momentum", "dampening", "nesterov") if key in options}
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    try:
        made = kinds.get(name, torch.optim.SGD)([weight], lr=1e-3, **options)
        if not torch.cuda.is_available():
            made.step()
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ConfigError(
            f"optimizer.kwargs: {optimizer.get('kwargs')!r} is not allowed; it must be options that "
            f"{name} accepts together ({reason})."
        ) from error
