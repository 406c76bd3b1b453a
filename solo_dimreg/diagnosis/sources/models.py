"""Compute the features of the user's model over the user's loader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from solo_dimreg.diagnosis.sources.arrays import INTEGERS, NAMES
from solo_dimreg.errors import ConfigError, brief
from solo_dimreg.monitor.named_modules import OutputRecorder, evaluation_mode, find_module, rows_of


@torch.no_grad()
def collect(
    model: Callable[..., Any],
    loader: Iterable[Any],
    features: str | None = None,
    embeddings: str | None = None,
    max_samples: int | None = None,
    take: Callable[[int, int], None] | None = None,
) -> dict[str, Tensor]:
    """Run a model over a loader once, in evaluation mode, and return its outputs on the CPU.

    Args:
        model: Takes a batch of images, and returns features, (features, embeddings), or a mapping that names
            them, as solo-learn's methods do. A timm model gives the pooled features before its head.
        loader: Yields images, or (images, labels, ...), on any device.
        features, embeddings: The names of modules of the model whose outputs are taken instead.
        max_samples: Stop after this many samples.
        take: Called after each forward pass with the size of the batch and how many of its images count, see
            :meth:`solo_dimreg.diagnosis.layers.LayerRecorder.take`.

    Returns:
        ``features`` (N, D) and, if there are any, ``embeddings`` (N, d) and ``labels`` (N,).

    Raises:
        ConfigError: the batches or the outputs are of another kind, or a module is not found.
    """
    parts: dict[str, list[Tensor]] = {}
    count = 0
    bar = tqdm(loader, desc=type(model).__name__, unit="batch", delay=2)
    tensors = (*model.parameters(), *model.buffers()) if isinstance(model, nn.Module) else ()
    home = next((each for each in tensors if each.is_floating_point()), None)
    mode = evaluation_mode(model) if isinstance(model, nn.Module) else nullcontext()
    with mode, _forward(model, features, embeddings) as forward:
        for batch in bar:
            images, labels = _unpack(batch)
            if home is not None:  # in half precision if the model is
                images = images.to(home.device, home.dtype if images.is_floating_point() else images.dtype)
            with explained_refusal(f"model: {type(model).__name__}", images):
                found = forward(images)
            if take is not None:
                left = len(images) if max_samples is None else max_samples - count
                take(len(images), min(len(images), left))
            found |= {} if labels is None else {"labels": labels}
            for name, rows in found.items():
                # A model or a loader may reuse its memory for the next batch.
                parts.setdefault(name, []).append(rows.to("cpu", copy=True))
            count += len(images)
            if max_samples is not None and count >= max_samples:
                break
    if not parts:
        raise ConfigError("loader: yields no batch.")
    outputs = {name: torch.cat(rows)[:max_samples] for name, rows in parts.items()}
    return {name: rows for name, rows in outputs.items() if len(rows) == len(outputs["features"])}


@contextmanager
def explained_refusal(what: str, images: Tensor) -> Iterator[None]:
    """Turn the error of a model that does not take the images into a ConfigError with their shape."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{what} does not take images of shape {tuple(images.shape)}, {images.dtype}: (batch, channels, "
            f"height, width) must fit the model ({brief(error)})."
        ) from error


@contextmanager
def _forward(
    model: Any, features: str | None, embeddings: str | None
) -> Iterator[Callable[[Tensor], dict[str, Tensor]]]:
    """Yield a function that returns the features and embeddings of images."""
    given = {"features": features, "embeddings": embeddings}
    names = {kind: name for kind, name in given.items() if name is not None}
    if names and not isinstance(model, nn.Module):
        raise ConfigError("features, embeddings: name modules, which only a torch.nn.Module has.")
    seen: dict[str, Tensor] = {}
    modules = {kind: find_module(kind, model, name) for kind, name in names.items()}
    taps = [
        OutputRecorder(f"{kind} ({names[kind]})", module, partial(_keep_first, seen, kind))
        for kind, module in modules.items()
    ]
    run = model if names else _without_head(model)

    def forward(images: Tensor) -> dict[str, Tensor]:
        seen.clear()
        output = run(images)
        found = seen if features is not None else {**_features_and_embeddings(output), **seen}
        for kind in names.keys() - found.keys():
            raise ConfigError(f"{kind}: {names[kind]!r} is not called by {type(model).__name__}.")
        return dict(found)

    try:
        yield forward
    finally:
        for tap in taps:
            tap.remove()


def _keep_first(seen: dict[str, Tensor], kind: str, rows: Tensor) -> None:
    """Keep a copy of the output of a module's first call, as an operation in place may change it."""
    if kind not in seen:
        seen[kind] = rows.clone()


def _without_head(model: Any) -> Callable[[Tensor], Any]:
    """Return the function of a timm model up to the features before its head, or another model itself."""
    if not (hasattr(model, "forward_features") and hasattr(model, "forward_head")):
        return model
    return lambda images: model.forward_head(model.forward_features(images), pre_logits=True)


def _features_and_embeddings(output: Any) -> dict[str, Tensor]:
    kinds = ("features", "embeddings")
    if isinstance(output, Mapping):
        values = {kind: [output.get(name) for name in NAMES[kind]] for kind in kinds}
        found = {kind: next((each for each in values[kind] if each is not None), None) for kind in kinds}
        if found["features"] is None:
            raise ConfigError(
                f"model: returns {', '.join(map(str, output)) or 'nothing'}, and no features; name the "
                "module whose output they are: features='backbone'."
            )
    else:
        several = output if isinstance(output, tuple | list) else (output,)
        found = dict(zip(kinds, several, strict=False))
    return {kind: rows_of(f"model ({kind})", rows) for kind, rows in found.items() if rows is not None}


def _unpack(batch: Any) -> tuple[Tensor, Tensor | None]:
    images, *rest = batch if isinstance(batch, tuple | list) and batch else (batch,)
    if not isinstance(images, Tensor) or images.dim() < 2:
        is_tensor = isinstance(images, Tensor)
        what = f"a tensor of shape {tuple(images.shape)}" if is_tensor else type(images).__name__
        raise ConfigError(
            f"loader: yields {what}, not images or (images, labels, ...); convert the batches with a "
            "generator: ((batch['image'], batch['label']) for batch in loader)."
        )
    labels = rest[0] if rest else None
    fits = isinstance(labels, Tensor) and labels.dtype in INTEGERS and labels.shape == images.shape[:1]
    return images, labels if fits else None
