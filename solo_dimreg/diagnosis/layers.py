"""Profile the layers of a network: measure what comes out of each block while the network runs.

Hooks pool each output to one row an image. The rows of at most 2,048 images are kept, and no maps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from solo_dimreg.diagnosis.diagnose import Diagnosis, diagnose
from solo_dimreg.diagnosis.layer_profile import BACKBONE, Layer, LayerProfile
from solo_dimreg.diagnosis.neighbourhoods import Batch
from solo_dimreg.diagnosis.sources.opening import Source
from solo_dimreg.errors import ConfigError
from solo_dimreg.functional import dense_structure, effective_rank
from solo_dimreg.functional._rows import PAIRWISE_ROWS
from solo_dimreg.functional.dse import DenseStructure
from solo_dimreg.metrics.intervals import (
    UNBOUNDED,
    correlation_deviations,
    interval,
    mean_share_deviations,
    of_few_groups,
    rank_deviations,
)
from solo_dimreg.metrics.neighbourhoods import neighbours_within
from solo_dimreg.metrics.registry import METRICS, POSITIVE, SHARE
from solo_dimreg.metrics.streaming import FeatureStatistics
from solo_dimreg.monitor.named_modules import positions_of

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
# These return their input in evaluation mode.
TRANSPARENT = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
# In each batch, the images whose rank within the image is measured, and those of the DSE.
WITHIN_IMAGES, DENSE_IMAGES = 8, 128
# The terms of the DSE, and the estimate, with the limits of each.
DENSE = dict.fromkeys(("distance", "radius_image", "radius_group"), POSITIVE)
DENSE |= {"dimension": SHARE, "dse": UNBOUNDED}


def blocks_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules of a network whose outputs a profile measures, by name.

    A block is a module with parts of its own that stands in a container, such as a ResNet's ``Bottleneck``.
    It is measured as a whole, unless it has blocks in it. Any other module is replaced by its children if a
    container is in it, down to its single layers.
    """
    blocks = {
        child
        for container in model.modules()
        if isinstance(container, CONTAINERS)
        for child in container.children()
        if not isinstance(child, CONTAINERS) and any(child.children())
    }
    return dict(_parts(model, "", blocks, top=True))


def _parts(
    module: nn.Module, name: str, blocks: set[nn.Module], top: bool = False
) -> Iterator[tuple[str, nn.Module]]:
    below = {*module.modules()} - {module}
    if module in blocks:
        opened = not blocks.isdisjoint(below)
    else:
        opened = top or isinstance(module, CONTAINERS) or any(isinstance(each, CONTAINERS) for each in below)
    if not opened or not below:
        if not isinstance(module, TRANSPARENT):
            yield name, module
        return
    for child_name, child in module.named_children():
        yield from _parts(child, f"{name}.{child_name}" if name else child_name, blocks)


@dataclass
class _Output:
    """The outputs of one module: rows and one random position of each image, and ranks within images."""

    rows: list[Tensor] = field(default_factory=list)
    tokens: list[Tensor] = field(default_factory=list)
    within: list[Tensor] = field(default_factory=list)
    positions: int = 1


class LayerRecorder:
    """Record the outputs of the blocks of a model for its profile, until it is closed.

    Args:
        features, embeddings: The names of the backbone and of the projector; empty for none.
        count: The number of images that will come; of more than 2,048, evenly spaced ones are taken.
    """

    def __init__(self, model: nn.Module, features: str = "", embeddings: str = "", count: int = 0) -> None:
        self.features, self.embeddings = features, embeddings
        self.is_open = True
        self._stride, self._seen = max(1, math.ceil(count / PAIRWISE_ROWS)), 0
        self._modules = blocks_of(model)
        self._layers: dict[str, _Output] = {}
        self._outputs: dict[str, _Output] = {}  # in this forward pass, in the order of the calls
        self._map: tuple[str, Tensor] | None = None  # the last map in this forward pass
        self._dense: list[DenseStructure] = []
        self._dense_of: tuple[str, int] = "", 0
        self._generator = torch.Generator().manual_seed(0)
        self._handles = {
            name: module.register_forward_hook(partial(self._hook, name))
            for name, module in self._modules.items()
        }

    def __enter__(self) -> LayerRecorder:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles.values():
            handle.remove()

    def through(
        self, batches: Callable[[Sequence[int] | None], Iterator[Batch]], indices: Sequence[int] | None
    ) -> Iterator[Batch]:
        """Yield the batches of a source, and record the first pass over all of them."""
        self.is_open = whole = indices is None and not self._seen
        for batch in batches(indices):
            self.is_open = False
            if whole:
                self.take(len(batch[0]))
            yield batch
            self.is_open = whole
        self.is_open = False

    @torch.no_grad()
    def _hook(self, name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if not self.is_open or (x := positions_of(output)) is None:
            return
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        self._outputs.pop(name, None)  # the last call counts, and gives the layer its place
        found = self._outputs[name] = _Output([x.mean(dim=1)], positions=x.shape[1])
        if x.shape[1] > 1:
            places = torch.randint(x.shape[1], (len(x),), generator=self._generator)
            found.tokens.append(x[torch.arange(len(x)), places.to(x.device)])
            found.within = [effective_rank(x[i], center=True) for i in _spread(len(x), WITHIN_IMAGES)]
            self._map = name, x

    @torch.no_grad()
    def take(self, batch: int, images: int | None = None) -> None:
        """Take the outputs of a forward pass of a batch, or those of its first images."""
        outputs = {name: each for name, each in self._outputs.items() if len(each.rows[0]) == batch}
        images = batch if images is None else images
        if not self._layers:
            self._layers = {name: _Output() for name in self._chosen(outputs)}
            for name in self._modules.keys() - self._layers.keys():
                self._handles.pop(name).remove()
        taken = torch.arange(-self._seen % self._stride, images, self._stride)
        taken = taken[: max(0, PAIRWISE_ROWS - sum(len(rows) for rows in self._first.rows))]
        self._seen += images
        for name, layer in self._layers.items():
            if (found := outputs.get(name)) is None:
                raise ConfigError(f"layers: {name!r} is called for some batches only; its rows do not fit.")
            layer.positions = found.positions
            for kept, new in ((layer.rows, found.rows), (layer.tokens, found.tokens)):
                kept += [rows[taken.to(rows.device)].cpu() for rows in new]
            layer.within += [rank.cpu() for rank in found.within]
        if self._map is not None and self._map[0] in self._layers:
            self._take_map(*self._map, images)
        self._outputs, self._map = {}, None

    @property
    def _first(self) -> _Output:
        return next(iter(self._layers.values()), _Output())

    def _take_map(self, name: str, x: Tensor, images: int) -> None:
        """Measure the DSE, whose value depends on the number of images, of batches like the first."""
        x = x[_spread(images, DENSE_IMAGES)]
        if not self._dense:
            self._dense_of = name, len(x)
        if self._dense_of == (name, len(x)) and len(x) > 1:
            self._dense.append(dense_structure(x))

    def _chosen(self, outputs: dict[str, _Output]) -> Iterator[str]:
        """Yield the names of the layers: layers without a matrix of weights belong to the one before."""
        names: list[str] = []
        for name in outputs:
            pooling = not [*self._modules[name].parameters()]
            if not (names and pooling and _equal(outputs[names[-1]], outputs[name])):
                names.append(name)
        for name, following in zip_longest(names, names[1:]):
            if following is None or not self._continues(name, following):
                yield name

    def _continues(self, name: str, following: str) -> bool:
        """Return whether a module, such as a batch norm, only finishes the layer before it."""
        module, after = self._modules[name], self._modules[following]
        weighted = any(weight.dim() > 1 for weight in after.parameters())
        is_block = any(module.children()) and any(weight.dim() > 1 for weight in module.parameters())
        return not weighted and not is_block and self._part(name) == self._part(following)

    def _part(self, name: str) -> str:
        def is_in(part: str) -> bool:
            return bool(part) and (name == part or name.startswith(f"{part}."))

        if is_in(self.embeddings):
            return self.embeddings
        if self.features and not is_in(self.features):
            return name.partition(".")[0]
        return BACKBONE

    def profile(self) -> LayerProfile:
        """Return the metrics of all layers.

        Raises:
            ConfigError: A layer has values that are not finite, or no layer was seen.
        """
        if not self._layers:
            raise ConfigError("layers: no module of the network returns rows, maps or tokens of its images.")
        layers = [self._describe(name, each) for name, each in self._layers.items()]
        dense: dict[str, Any] = {}
        if self._dense:
            terms = [[*map(float, (*each[:4], each.estimate))] for each in self._dense]
            means = torch.tensor(terms, dtype=torch.float64).mean(dim=0).tolist()
            values = dict(zip(DENSE, means, strict=True))
            moved = dict(zip(DENSE, torch.cat([each.influence for each in self._dense]).cpu().T, strict=True))
            ends = {n: interval(values[n], of_few_groups(moved[n]), bounds) for n, bounds in DENSE.items()}
            dense = {"layer": self._dense_of[0], "images": self._dense_of[1], **values, "intervals": ends}
        return LayerProfile(layers, sum(map(len, self._first.rows)), dense)

    def _describe(self, name: str, layer: _Output) -> Layer:
        rows = torch.cat(layer.rows)
        if not rows.isfinite().all():
            raise ConfigError(f"layers: {name!r} returns values that are not finite.")
        tokens = torch.cat(layer.tokens) if layer.tokens else None
        statistics = FeatureStatistics()
        statistics.update(rows, tokens)
        moments, across = statistics.features, statistics.embeddings
        near, attainable = neighbours_within(rows), max(1, min(len(rows) - 1, rows.shape[1]))
        lid = near.mean_lid()
        values: dict[str, Any] = {"lid": lid if math.isfinite(lid) else None} | {
            metric: float(METRICS[metric].of_moments(moments))  # type: ignore[misc]
            for metric in ("effective_rank", "mean_share", "off_diagonal_correlation")
        }
        moved = {
            "lid": near.lid_deviations(),
            "effective_rank": rank_deviations(moments, rows)[0],
            "mean_share": mean_share_deviations(moments, rows),
            "off_diagonal_correlation": correlation_deviations(moments, rows),
        }
        bounds = {metric: METRICS[metric].bounds for metric in values} | {"effective_rank": (1, attainable)}
        if layer.within:
            within = torch.stack(layer.within).double()
            values["within_rank"], moved["within_rank"] = float(within.mean()), of_few_groups(within)
            bounds["within_rank"] = POSITIVE
        if across is not None and tokens is not None:
            values["across_rank"] = float(METRICS["effective_rank"].of_moments(across))  # type: ignore[misc]
            moved["across_rank"] = rank_deviations(across, tokens)[0]
            bounds["across_rank"] = bounds["effective_rank"]
        ends = {metric: interval(values[metric], moved[metric], bounds[metric]) for metric in values}
        return Layer(
            *(name, self._part(name), rows.shape[1], layer.positions, attainable), **values, intervals=ends
        )


def _spread(count: int, wanted: int) -> list[int]:
    """Return at most ``wanted`` of the indices below ``count``, evenly spaced."""
    few = min(count, wanted)
    return [i * count // few for i in range(few)]


def _equal(first: _Output, second: _Output) -> bool:
    """Return whether two modules pool to the same rows, as a block and the average pooling after it."""
    a, b = first.rows[0], second.rows[0]
    return a.shape == b.shape and bool(torch.allclose(a, b, rtol=1e-4, atol=1e-5 * float(a.abs().max())))


def diagnose_with_layers(source: Source, with_umap: bool = False) -> Diagnosis:
    """Return the diagnosis of a source with the profile of its network; raise a ConfigError without one."""
    if source.model is None:
        raise ConfigError(f"layers: {source.name} has no network; give a checkpoint or a timm model.")
    with LayerRecorder(source.model, *source.parts, count=source.count) as recorder:
        recorded = replace(source, batches=partial(recorder.through, source.batches))
        found = diagnose(recorded, with_umap)
        return replace(found, layers=recorder.profile())
