"""Read features from memory or from files: ``.npy``, ``.npz``, ``.pt``, ``.safetensors``; no file is run."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solo_dimreg.diagnosis.sources.names import check_feature_file
from solo_dimreg.diagnosis.sources.torch_files import load_torch
from solo_dimreg.errors import ConfigError

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
# The names that the parts of a file with several tensors may have.
NAMES = {
    "features": ("features", "feats", "feat", "r", "representations", "x"),
    "embeddings": ("embeddings", "z", "projections"),
    "labels": ("labels", "targets", "target", "y"),
}
# The first bytes of a file that numpy.save wrote.
NPY = b"\x93NUMPY"


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
    arrays = _open(path, "features")
    for name in ("embeddings", "labels"):
        other = files[name]
        if other is not None:
            arrays[name] = _open(other, name)[name]
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
        reason = " ".join(str(error).split())[:160].rstrip(".")
        raise ConfigError(
            f"{path}: cannot be read as {path.suffix} ({type(error).__name__}: {reason})."
        ) from error


def _numpy(path: Path) -> Array:
    # NumPy takes any other file for a pickle, and its message is about pickles.
    with path.open("rb") as file:
        if file.read(len(NPY)) != NPY:
            raise ConfigError(f"{path}: cannot be read as .npy: it is not a file that numpy.save wrote.")

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


def _npz(path: Path, name: str) -> dict[str, Array]:
    if not zipfile.is_zipfile(path):
        raise ConfigError(f"{path}: cannot be read as .npz: it is not a file that numpy.savez wrote.")
    with np.load(path, allow_pickle=False) as file:  # taking an array reads all of it
        return {ours: in_memory(file[theirs]) for ours, theirs in _named(path, name, file.files).items()}


def _torch(path: Path, name: str) -> dict[str, Array]:
    content = load_torch(path, mmap=True)
    if not isinstance(content, Tensor | Mapping):
        raise ConfigError(
            f"{path}: holds {_described(content)}; it must be one tensor (samples, dimensions), or a "
            "dictionary of tensors named features, embeddings and labels: torch.save(torch.cat(parts), path)."
        )
    found = content if isinstance(content, Mapping) else {name: content}
    tensors = {str(key): tensor for key, tensor in found.items() if isinstance(tensor, Tensor)}
    chosen = {ours: tensors[theirs] for ours, theirs in _named(path, name, tensors).items()}
    return {
        ours: Array(tuple(tensor.shape), tensor[:0] if tensor.dim() else tensor, _rows_of(tensor))
        for ours, tensor in chosen.items()
    }


def _described(content: Any) -> str:
    kind = f"a {type(content).__name__}"
    if isinstance(content, list | tuple) and content and all(isinstance(each, Tensor) for each in content):
        return f"{kind} of {len(content)} tensors"
    return kind


def _rows_of(tensor: Tensor) -> Callable[[int, int], Tensor]:
    return lambda start, stop: tensor[start:stop].clone()


def _safetensors(path: Path, name: str) -> dict[str, Array]:
    from safetensors import safe_open

    def reader(key: str) -> Callable[[int, int], Tensor]:
        def read(start: int, stop: int) -> Tensor:
            with safe_open(path, "pt") as file:
                return file.get_slice(key)[start:stop]

        return read

    with safe_open(path, "pt") as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    chosen = _named(path, name, [key for key, shape in shapes.items() if shape])
    return {
        ours: Array(shapes[theirs], reader(theirs)(0, 0), reader(theirs)) for ours, theirs in chosen.items()
    }


def _named(path: Path, name: str, present: Iterable[str]) -> dict[str, str]:
    """Return for each of our names the name of the array in the file; no other array need be read."""
    names = list(present)
    found = {
        ours: next(each for each in theirs if each in names)
        for ours, theirs in NAMES.items()
        if any(each in names for each in theirs)
    }
    if name in found:
        return found
    if len(names) == 1:
        return {name: names[0]}
    listed = ", ".join(names[:5]) or "nothing"
    save = {
        ".npz": f"numpy.savez({path.name!r}, {name}=...)",
        ".safetensors": f"save_file({{{name!r}: ...}}, {path.name!r})",
    }.get(path.suffix, f"torch.save({{{name!r}: ...}}, {path.name!r})")
    weights = ""
    if name == "features" and path.suffix != ".npz":
        weights = (
            f" If the file holds the weights of a model, use diagnose timm/<name> --weights {path.name}."
        )
    raise ConfigError(
        f"{path}: has no {'array' if path.suffix == '.npz' else 'tensor'} named {name} (found {listed}); "
        f"save the {name} under that name: {save}.{weights}"
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
