"""Load the weights of a timm model from a file of another program, whatever that wrapped around them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from solo_dimreg.diagnosis.sources.arrays import load_torch
from solo_dimreg.errors import ConfigError, brief

# Parts of keys that name the second of two equal networks, which is not taken: DINO's teacher and MoCo's
# query encoder are taken instead.
OTHERS = ("student", "momentum", "encoder_k", "target", "ema")
SHOWN = 3  # the number of keys of the file and of the model that an error names


def load_weights(model: nn.Module, name: str, path: Path) -> None:
    """Load the weights of a timm model from a ``.pth``, ``.pt``, ``.ckpt`` or ``.safetensors`` file.

    The weights may be nested in dictionaries (``state_dict``, ``model``, DINO's ``teacher``), and each key
    may have a prefix (``module.encoder_q.``, ``backbone.``). The prefix with most of the model's keys is
    taken. The weights of a classifier or a projector are left out. The file is never run as code.

    Raises:
        ConfigError: the file cannot be read, or does not hold all weights of this model.
    """
    try:
        content = load_file(path) if path.suffix == ".safetensors" else load_torch(path)
    except ConfigError as error:
        raise ConfigError(f"--weights: {error}") from error
    except Exception as error:
        raise ConfigError(f"--weights: {path}: cannot be read ({brief(error)}).") from error
    wanted = {key: value.shape for key, value in model.state_dict().items()}
    needed = {key for key in wanted if not key.endswith("num_batches_tracked")}
    tensors = dict(_tensors(content))
    prefixes = {""} | {key[: -len(own)] for key in tensors for own in needed if key.endswith(f".{own}")}

    def fitness(prefix: str) -> tuple[int, int, int]:
        found = sum(prefix + key in tensors for key in needed)
        return found, -sum(part in prefix.lower() for part in OTHERS), len(prefix)

    prefix = max(sorted(prefixes), key=fitness)
    own = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
    modules = {key.partition(".")[0] for key in wanted}
    state = {key: value for key, value in own.items() if key.partition(".")[0] in modules}
    where = f"--weights: {path}: holds no weights of timm's {name}"
    missing, unknown = sorted(needed - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or unknown:
        under = f" under {prefix!r}" if prefix else ""
        raise ConfigError(
            f"{where}: {len(needed) - len(missing)} of its {len(needed)} keys are there{under}. "
            f"Missing keys: {_some(missing)}; keys in the file: {_some(unknown or list(tensors))}."
        )
    for key in sorted(state):
        if state[key].shape != wanted[key]:
            raise ConfigError(
                f"{where}: {prefix}{key} has shape {tuple(state[key].shape)}, not {tuple(wanted[key])}."
            )
    model.load_state_dict(state, strict=False)  # older files lack num_batches_tracked


def _tensors(content: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors in nested dictionaries, with their keys joined by dots."""
    if isinstance(content, Tensor):
        yield prefix.removesuffix("."), content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _tensors(value, f"{prefix}{key}.")


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return (", ".join(keys[:SHOWN]) or "none") + more
