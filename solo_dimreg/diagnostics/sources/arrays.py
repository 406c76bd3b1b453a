"""Read features from memory or from files: ``.npy``, ``.npz``, ``.pt``, ``.safetensors``; no file is run."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solo_dimreg.diagnostics.sources.names import check_feature_file
from solo_dimreg.errors import ConfigError

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
# The names that the parts of a file with several tensors may have.
NAMES = {
    "features": ("features", "feats", "feat", "r", "representations", "x"),
    "embeddings": ("embeddings", "z", "projections"),
    "labels": ("labels", "targets", "target", "y"),
}


@dataclass(frozen=True)
class Array:
    """An array on disk or in memory.

    Attributes:
        shape: The shape.
        example: An empty slice, which has the dtype.
        read: A function that copies the rows from a start to a stop into a tensor.
    """

    shape: tuple[int, ...]
    example: Tensor
    read: Callable[[int, int], Tensor]

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def __str__(self) -> str:
        """Return the name for errors."""
        return "in memory"


def open_arrays(
    path: Path | Array, embeddings: Path | Array | None = None, labels: Path | Array | None = None
) -> dict[str, Array]:
    """Return the arrays ``features``, ``embeddings`` and ``labels`` of a feature file, checked, not yet read.

    Args:
        path: A ``.npy`` file of features, or a ``.npz``, ``.pt`` or ``.safetensors`` file that may hold all
            three; or an array in memory.
        embeddings, labels: The files or arrays that ``path`` does not hold.

    Raises:
        ConfigError: a file is missing, damaged or would run code, or the shapes do not fit.
    """
    files = {"features": path, "embeddings": embeddings, "labels": labels}
    arrays = _open(path)
    for name in ("embeddings", "labels"):
        other = files[name]
        if other is not None:
            arrays[name] = _open(other)["features"]
    for name, array in arrays.items():
        _check(f"{files[name] or path}: {name}", name, array)
        if len(array) != len(arrays["features"]):
            raise ConfigError(
                f"{files[name] or path}: {len(array)} {name} for {len(arrays['features'])} features."
            )
    return arrays


def in_memory(values: Any) -> Array:
    """Return an `Array` of a tensor on any device, or of anything that NumPy takes for an array.

    A memory-mapped array stays on disk.

    Raises:
        ConfigError: the values are not numbers.
    """
    if isinstance(values, Tensor):
        values = values.detach()
        example = values[:0] if values.dim() else values
        return Array(tuple(values.shape), example, lambda start, stop: values[start:stop].cpu().clone())
    try:
        array = np.asarray(values)
        read = _numpy_rows(lambda: array)
        return Array(array.shape, read(0, 0) if array.ndim else torch.from_numpy(array[None]), read)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{type(values).__name__}: is not an array of numbers ({error}).") from error


def _open(path: Path | Array) -> dict[str, Array]:
    if isinstance(path, Array):
        return {"features": path}
    check_feature_file(path)
    try:
        if path.suffix == ".npy":
            return {"features": _numpy(path)}
        read = {".npz": _npz, ".safetensors": _safetensors}.get(path.suffix, _torch)
        arrays = read(path)
    except UnpicklingError as error:
        raise ConfigError(
            f"{path}: holds more than tensors and is not loaded, since it could run code; save tensors only."
        ) from error
    except ConfigError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:160].rstrip(".")
        raise ConfigError(
            f"{path}: cannot be read as {path.suffix} ({type(error).__name__}: {reason})."
        ) from error
    return _named(path, arrays)


def _numpy(path: Path) -> Array:
    # Opened again each time: the pages of an open mapping count as memory of the process.
    def whole() -> np.ndarray:
        return np.load(path, mmap_mode="r", allow_pickle=False)

    read = _numpy_rows(whole)
    return Array(whole().shape, read(0, 0), read)


def _numpy_rows(whole: Callable[[], np.ndarray]) -> Callable[[int, int], Tensor]:
    def read(start: int, stop: int) -> Tensor:
        rows = whole()[start:stop]
        return torch.from_numpy(rows.astype(rows.dtype.newbyteorder("=")))

    return read


def _npz(path: Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as file:  # taking an array reads all of it
        return {name: in_memory(file[name]) for name in file.files}


def _torch(path: Path) -> dict[str, Array]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of another protocol, in files that are refused anyway
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    tensors = content if isinstance(content, Mapping) else {"features": content}
    if not isinstance(content, Tensor | Mapping):
        raise ConfigError(
            f"{path}: holds {_described(content)}; it must be one tensor (samples, dimensions), or a "
            "dictionary of tensors named features, embeddings and labels: torch.save(torch.cat(parts), path)."
        )
    return {
        str(name): Array(tuple(tensor.shape), tensor[:0] if tensor.dim() else tensor, _rows_of(tensor))
        for name, tensor in tensors.items()
        if isinstance(tensor, Tensor)
    }


def _described(content: Any) -> str:
    kind = f"a {type(content).__name__}"
    if isinstance(content, list | tuple) and content and all(isinstance(each, Tensor) for each in content):
        return f"{kind} of {len(content)} tensors"
    return kind


def _rows_of(tensor: Tensor) -> Callable[[int, int], Tensor]:
    return lambda start, stop: tensor[start:stop].clone()


def _safetensors(path: Path) -> dict[str, Array]:
    from safetensors import safe_open

    def reader(name: str) -> Callable[[int, int], Tensor]:
        def read(start: int, stop: int) -> Tensor:
            with safe_open(path, "pt") as file:
                return file.get_slice(name)[start:stop]

        return read

    with safe_open(path, "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return {name: Array(shape, reader(name)(0, 0), reader(name)) for name, shape in shapes.items() if shape}


def _named(path: Path, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays under our names for them."""
    found = {
        ours: next(arrays[name] for name in theirs if name in arrays)
        for ours, theirs in NAMES.items()
        if any(name in arrays for name in theirs)
    }
    if "features" in found:
        return found
    if len(arrays) == 1:
        return {"features": next(iter(arrays.values()))}
    names = ", ".join(list(arrays)[:5]) or "no tensor"
    raise ConfigError(
        f"{path}: has no tensor named features (found {names}); if it holds the weights of a model, use "
        f"diagnose timm/<name> --weights {path.name}."
    )


def _check(where: str, name: str, array: Array) -> None:
    dtype = array.example.dtype
    if name == "labels":
        if dtype not in INTEGERS or len(array.shape) != 1:
            raise ConfigError(
                f"{where} are {dtype} of shape {array.shape}; they must be integers, one for each sample."
            )
    elif dtype not in (*FLOATS, *INTEGERS):
        raise ConfigError(f"{where} are {dtype}; they must be floating-point numbers or signed integers.")
    elif len(array.shape) != 2 or 0 in array.shape:
        raise ConfigError(f"{where} have shape {array.shape}; they must be (samples, dimensions), not empty.")
