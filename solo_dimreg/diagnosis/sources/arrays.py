"""Read features from memory or from files: ``.npy``, ``.npz``, ``.pt``, ``.safetensors``; no file is run."""

from __future__ import annotations

import argparse
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solo_dimreg.diagnosis.sources.names import check_feature_file
from solo_dimreg.errors import ConfigError, brief

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
# The names that the parts of a file with several tensors may have.
NAMES = {
    "features": ("features", "feats", "feat", "r", "representations", "x"),
    "embeddings": ("embeddings", "z", "projections"),
    "labels": ("labels", "targets", "target", "y"),
}
# The first bytes of a file that numpy.save wrote, and of one that torch.save wrote: a ZIP file, or before
# version 1.6 a pickle.
NPY = b"\x93NUMPY"
TORCH = (b"PK", b"\x80")


@dataclass(frozen=True)
class Array:
    """An array on disk or in memory.

    Attributes:
        shape, dtype: The shape, and the dtype of the tensors that are read.
        read: A function that copies the rows from a start to a stop into a tensor on the CPU.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[int, int], Tensor]

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def __str__(self) -> str:
        return "in memory"  # in errors, in place of a path


def open_arrays(
    features: Path | Array, embeddings: Path | Array | None = None, labels: Path | Array | None = None
) -> dict[str, Array]:
    """Return the arrays ``features``, ``embeddings`` and ``labels`` of a feature file, checked, not yet read.

    Args:
        features: A ``.npy`` file, or a ``.npz``, ``.pt`` or ``.safetensors`` file that may hold all three; or
            an array in memory.
        embeddings, labels: The files or arrays that this file does not hold.

    Raises:
        ConfigError: a file is missing, damaged or would run code, or the shapes do not fit.
    """
    files = {"features": features, "embeddings": embeddings, "labels": labels}
    arrays = _open(features, "features")
    for name, other in files.items():
        if other is not None and name != "features":
            arrays[name] = _open(other, name)[name]
    for name, array in arrays.items():
        where = files[name] or features
        _check(f"{where}: {name}", name, array)
        if len(array) != len(arrays["features"]):
            raise ConfigError(f"{where}: {len(array)} {name} for {len(arrays['features'])} features.")
    return arrays


def in_memory(values: Any) -> Array:
    """Return an `Array` of a tensor on any device, or of anything that NumPy takes for an array of numbers.

    A memory-mapped array stays on disk. Other values raise a ConfigError.
    """
    try:
        found = values.detach() if isinstance(values, Tensor) else np.asarray(values)
        return _array(lambda: found)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{type(values).__name__}: is not an array of numbers ({error}).") from error


def _array(whole: Callable[[], np.ndarray | Tensor]) -> Array:
    """Return an `Array` of a NumPy array or a tensor, which ``whole`` opens anew for each reading."""

    def copied(rows: np.ndarray | Tensor) -> Tensor:
        if isinstance(rows, Tensor):
            return rows.to("cpu", copy=True)
        return torch.from_numpy(rows.astype(rows.dtype.newbyteorder("=")))

    dtype = copied(whole()[None][:0]).dtype  # with an axis more, since a single number has none
    return Array(tuple(whole().shape), dtype, lambda start, stop: copied(whole()[start:stop]))


def _open(path: Path | Array, name: str) -> dict[str, Array]:
    """Return the arrays of a file under our names for them; the array of the given name is there."""
    if isinstance(path, Array):
        return {name: path}
    check_feature_file(path)
    try:
        if path.suffix == ".npy":
            return {name: _numpy(path)}
        read = {".npz": _npz, ".safetensors": _safetensors}.get(path.suffix, _torch)
        return read(path, name)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{path}: cannot be read as {path.suffix} ({brief(error)}).") from error


def _numpy(path: Path) -> Array:
    # NumPy takes any other file for a pickle, and its message is about pickles.
    with path.open("rb") as file:
        if file.read(len(NPY)) != NPY:
            raise ConfigError(f"{path}: cannot be read as .npy: it is not a file that numpy.save wrote.")
    # Opened again each time: the pages of an open mapping count as memory of the process.
    return _array(lambda: np.load(path, mmap_mode="r", allow_pickle=False))


def _npz(path: Path, name: str) -> dict[str, Array]:
    if not zipfile.is_zipfile(path):
        raise ConfigError(f"{path}: cannot be read as .npz: it is not a file that numpy.savez wrote.")
    with np.load(path, allow_pickle=False) as file:  # taking an array reads all of it
        return {ours: in_memory(file[theirs]) for ours, theirs in _named(path, name, file.files).items()}


def _torch(path: Path, name: str) -> dict[str, Array]:
    content = load_torch(path, mmap=True)
    if not isinstance(content, Tensor | Mapping):
        kind = f"a {type(content).__name__}"
        if isinstance(content, list | tuple) and content and all(isinstance(x, Tensor) for x in content):
            kind = f"{kind} of {len(content)} tensors"
        raise ConfigError(
            f"{path}: holds {kind}; it must be one tensor (samples, dimensions), or a dictionary of tensors "
            "named features, embeddings and labels: torch.save(torch.cat(parts), path)."
        )
    found = content if isinstance(content, Mapping) else {name: content}
    tensors = {str(key): tensor for key, tensor in found.items() if isinstance(tensor, Tensor)}
    return {ours: in_memory(tensors[theirs]) for ours, theirs in _named(path, name, tensors).items()}


def _safetensors(path: Path, name: str) -> dict[str, Array]:
    from safetensors import safe_open

    def array(key: str) -> Array:
        def read(start: int, stop: int) -> Tensor:
            with safe_open(path, "pt") as file:
                return file.get_slice(key)[start:stop]

        return Array(shapes[key], read(0, 0).dtype, read)

    with safe_open(path, "pt") as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    names = _named(path, name, [key for key, shape in shapes.items() if shape])
    return {ours: array(theirs) for ours, theirs in names.items()}


def _named(path: Path, name: str, present: Iterable[str]) -> dict[str, str]:
    """Return for each of our names the name of the array in the file; no other array need be read."""
    names = list(present)
    matches = {ours: [each for each in theirs if each in names] for ours, theirs in NAMES.items()}
    found = {ours: each[0] for ours, each in matches.items() if each}
    if name in found:
        return found
    if len(names) == 1:
        return {name: names[0]}
    kind, save = "tensor", f"torch.save({{{name!r}: ...}}, {path.name!r})"
    if path.suffix == ".npz":
        kind, save = "array", f"numpy.savez({path.name!r}, {name}=...)"
    elif path.suffix == ".safetensors":
        save = f"save_file({{{name!r}: ...}}, {path.name!r})"
    weights = f" If the file holds the weights of a model, use diagnose timm/<name> --weights {path.name}."
    raise ConfigError(
        f"{path}: has no {kind} named {name} (found {', '.join(names[:5]) or 'nothing'}); save the {name} "
        f"under that name: {save}.{weights if name == 'features' and kind == 'tensor' else ''}"
    )


def load_torch(path: Path, mmap: bool = False) -> Any:
    """Return the tensors, and the containers around them, of a file that ``torch.save`` wrote.

    With ``mmap``, they stay on disk until they are read, where the format of the file allows that. A file of
    another program, or with more than tensors, is never run as code, and raises a ConfigError.
    """
    # torch takes any other file for a pickle, and its messages are about pickles.
    with path.open("rb") as file:
        if not file.read(2).startswith(TORCH):
            raise ConfigError(f"{path}: is not a file that torch.save wrote.")
    with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
        warnings.simplefilter("ignore")  # warnings of another pickle protocol, in files that are refused
        try:
            return torch.load(path, "cpu", weights_only=True, mmap=mmap and zipfile.is_zipfile(path))
        except UnpicklingError as error:
            raise ConfigError(
                f"{path}: holds more than tensors and is not loaded, since it could run code; save tensors "
                "only."
            ) from error


def _check(where: str, name: str, array: Array) -> None:
    dtype = array.dtype
    if name == "labels":
        if dtype not in INTEGERS or len(array.shape) != 1:
            raise ConfigError(
                f"{where} are {dtype} of shape {array.shape}; they must be integers, one for each sample."
            )
    elif dtype not in (*FLOATS, *INTEGERS):
        raise ConfigError(f"{where} are {dtype}; they must be floating-point numbers or signed integers.")
    elif len(array.shape) != 2 or 0 in array.shape:
        raise ConfigError(f"{where} have shape {array.shape}; they must be (samples, dimensions), not empty.")
