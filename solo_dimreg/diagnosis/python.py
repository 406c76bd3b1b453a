"""``diagnose`` for Python: it takes features, or a model and a loader, and returns a verdict and metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from solo_dimreg.diagnosis import diagnose as diagnostics
from solo_dimreg.diagnosis.diagnose import Diagnosis
from solo_dimreg.diagnosis.differences import Comparison, compare
from solo_dimreg.diagnosis.layer_profile import LayerProfile
from solo_dimreg.diagnosis.layers import LayerRecorder, diagnose_with_layers
from solo_dimreg.diagnosis.sources.arrays import Array, in_memory, open_arrays
from solo_dimreg.diagnosis.sources.images import Images
from solo_dimreg.diagnosis.sources.models import collect
from solo_dimreg.diagnosis.sources.names import SUFFIXES
from solo_dimreg.diagnosis.sources.opening import NETWORK, Source, array_source, open_source
from solo_dimreg.errors import ConfigError
from solo_dimreg.files import check_writable


class DiagnosisResult(Diagnosis):
    """A verdict, and the metrics of the features as attributes: ``effective_rank``, ``lid``, ``spectrum`` ...

    ``interval("effective_rank")`` is the 95 % interval over images of a metric, ``interval("lid_by_k", 64)``
    that of the LID with 64 neighbours. A notebook shows the result with its plots.

    Attributes:
        features, embeddings: The metrics of each; the embeddings may be None.
        information, information_intervals: I(R;Z) and its 95 % intervals over images, by the name of the
            metric; empty without embeddings.
        classes: A row for each class: name, number of samples, LID, effective rank, and variance within.
        layers: The profile of the layers: ``sentence``, and ``layers`` with their metrics; None without.
    """

    def __getattr__(self, name: str) -> Any:
        if name == "features":  # while a copy is made
            raise AttributeError(name)
        return getattr(self.features, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self.features)})

    @property
    def mutual_information(self) -> float | None:
        """Return I(R;Z) of features and embeddings, of order 2, in nats; None without embeddings."""
        return self.information.get("mutual_information")

    def compared_with(self, other: DiagnosisResult) -> Comparison:
        """Return the differences from another result with their intervals; printed, those that decide."""
        return compare(self, other)

    def save(self, folder: str | Path) -> Path:
        """Write ``diagnosis.html``, ``diagnosis.json`` and PNG plots, as ``solo-dimreg diagnose`` does.

        Returns:
            The path of the HTML page.

        Raises:
            ConfigError: the folder cannot be made or written into.
        """
        from solo_dimreg.diagnosis.page import write_diagnosis

        out = Path(folder).expanduser()
        check_writable("folder", out)
        return write_diagnosis([self], out)

    def __repr__(self) -> str:
        return f"{self.source.name}: {self.verdict} {self.caution}".rstrip()

    def _repr_html_(self) -> str:
        from solo_dimreg.diagnosis.page import fragment

        return fragment(self)


def diagnose(
    subject: Any,
    loader: Iterable[Any] | None = None,
    *,
    features: str | None = None,
    embeddings: Any = None,
    labels: Any = None,
    max_samples: int | None = None,
    name: str | None = None,
    layers: bool = False,
) -> DiagnosisResult:
    """Return whether features have collapsed completely, globally or locally, and their metrics.

    With more than 10,000 samples, the neighbours of 1,000 samples are sought among all of them. The features
    of a model are kept in memory on the CPU; a ``.npy`` file is read piece by piece.

    Args:
        subject: One of: features, a tensor or array (N, D); the path of a file of features (``.npy``,
            ``.npz``, ``.pt``, ``.safetensors``); the path of a checkpoint of solo-learn; a model, with a
            loader. A model takes a batch of images in its own dtype, and returns features, (features,
            embeddings), or a mapping that names them. A timm model gives the pooled features before its head.
            The model runs once over the loader, in evaluation mode.
        loader: For a model: yields images, or (images, labels, ...).
        features: For a model: the name of the module whose output is the features, such as ``"backbone"``.
        embeddings: For features: the array or file of the embeddings (N, d). For a model: the name of the
            module whose output is the embeddings.
        labels: For features: the array or file of the labels, integers (N,), for the table of classes.
        max_samples: For a model: stop after this many samples.
        name: The name in the results.
        layers: For a model or a checkpoint: also measure each block, and say where dimensions are lost.

    Raises:
        ConfigError: the input cannot be diagnosed; the message says in one line why.

    Example:
        >>> result = diagnose(torch.randn(500, 4) @ torch.randn(4, 100))
        >>> result.verdict.kind, round(result.effective_rank)
        ('collapsed', 4)
    """
    profile = None
    if loader is not None:
        if labels is not None:
            raise ConfigError("labels: not used with a loader, which yields them itself: (images, labels).")
        source, profile = _of_model(subject, loader, features, embeddings, max_samples, name, layers)
    elif isinstance(subject, nn.Module):
        raise ConfigError("loader: missing; a model needs images: diagnose(model, loader).")
    elif features is not None or max_samples is not None:
        raise ConfigError("features, max_samples: only allowed with a model and a loader.")
    elif isinstance(subject, str | Path):
        source = _of_path(Path(subject).expanduser(), embeddings, labels, name)
    else:
        source = _of_arrays(subject, embeddings, labels, name or "features")
    if layers and loader is None:
        found = diagnose_with_layers(source)
    else:
        found = replace(diagnostics.diagnose(source), layers=profile)
    return DiagnosisResult(**vars(found))


def _of_model(
    model: Callable[..., Any],
    loader: Iterable[Any],
    features: str | None,
    embeddings: Any,
    max_samples: int | None,
    name: str | None,
    layers: bool,
) -> tuple[Source, LayerProfile | None]:
    if not callable(model):
        raise ConfigError(f"loader: only allowed with a model; {type(model).__name__} is not a model.")
    if embeddings is not None and not isinstance(embeddings, str):
        raise ConfigError("embeddings: with a model, give the name of the module whose output they are.")
    if layers and not isinstance(model, nn.Module):
        raise ConfigError("layers: only a torch.nn.Module has layers that can be measured.")
    recorder, dataset = None, getattr(loader, "dataset", None)
    if isinstance(model, nn.Module) and layers:
        expected = [max_samples, len(dataset) if isinstance(dataset, Sized) else None]
        count = min((each for each in expected if each), default=0)
        recorder = LayerRecorder(model, features or "", embeddings or "", count)
    with recorder or nullcontext():
        take = recorder.take if recorder else None
        found = collect(model, loader, features, embeddings, max_samples, take)
    name = name or type(model).__name__
    arrays = open_arrays(**{kind: in_memory(rows) for kind, rows in found.items()})
    source = array_source(name, arrays, f" of {name}", getattr(dataset, "classes", ()), NETWORK)
    return source, recorder.profile() if recorder else None


def _of_path(path: Path, embeddings: Any, labels: Any, name: str | None) -> Source:
    if path.suffix in SUFFIXES:
        return _of_arrays(path, embeddings, labels, name or path.name, f" of {path.name}")
    if not path.exists():
        raise ConfigError(
            f"{path}: no such file or folder; give the path of features ({', '.join(SUFFIXES)}) or of a "
            "checkpoint of solo-learn. Give a model itself, not its name: diagnose(model, loader)."
        )
    if embeddings is not None or labels is not None:
        raise ConfigError("embeddings, labels: only allowed with features; a checkpoint brings its own.")
    return open_source(str(path), Images())


def _of_arrays(features: Any, embeddings: Any, labels: Any, name: str, origin: str = "") -> Source:
    arrays = open_arrays(
        _array(features), *(None if each is None else _array(each) for each in (embeddings, labels))
    )
    return array_source(name, arrays, origin)


def _array(given: Any) -> Path | Array:
    return Path(given).expanduser() if isinstance(given, str | Path) else in_memory(given)
