"""Hooks that add terms to the loss of a solo-learn method without copying its code.

Every solo-learn method calls ``super().training_step(...)``, takes ``out["loss"]`` as the loss of the online
classifier, and returns its own loss plus that. A class between the method and its base that adds a term to
``out["loss"]`` therefore adds it to the total: a subclass of ``SimCLR, FeatureHooks, BaseMethod`` has them in
this order among its bases.

The embeddings are not available there, because in solo-learn 1.0.2 each method computes its own from the
features. A class above the method collects them from the projector and adds terms to the returned loss. It
also appends the layer of the ``projector:`` block, with which Hua et al. (ICCV 2021) train feature
decorrelation. Their code also puts it behind the projectors of BYOL, SimCLR, SimSiam and Barlow Twins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from solo_dimreg.config.blocks import REMEDY, read_blocks
from solo_dimreg.distributed import shared_gathers
from solo_dimreg.errors import ConfigError
from solo_dimreg.monitor.callback import BlockMonitor
from solo_dimreg.monitor.named_modules import evaluation_mode
from solo_dimreg.nn import DecorrelatedBatchNorm
from solo_dimreg.solo_learn.base import Host
from solo_dimreg.solo_learn.divergence import DivergenceCallback
from solo_dimreg.solo_learn.late_buffers import LateBuffers
from solo_dimreg.solo_learn.method import average_over_processes
from solo_dimreg.solo_learn.mixins import Mixin, mixed_in
from solo_dimreg.solo_learn.monitoring import MonitorSupport
from solo_dimreg.solo_learn.regularizers import build_terms
from solo_dimreg.solo_learn.run_summary import RunSummary
from solo_dimreg.solo_learn.scripts import one_line_in_scripts

# The module that makes the embeddings; in DINO's head, the part before the prototypes.
PROJECTORS = ("projector", "head.mlp")


def with_hooks(host: Host, method: type) -> type:
    """Return a subclass of a solo-learn method that accepts our blocks of a config and every backbone."""
    base = host.momentum_method if issubclass(method, host.momentum_method) else host.base_method
    parents = (EmbeddingHooks, LateBuffers, method, FeatureHooks, base)
    own = {"__doc__": method.__doc__, "__module__": method.__module__, "host": host}
    return type(method.__name__, parents, own)


class FeatureHooks(Mixin):
    """The hooks below a method of solo-learn: they add regularizers of the features to its loss.

    Above ``BaseMomentumMethod``, the regularizers also see the features of the momentum encoder.
    """

    host: Host
    # The schedule's lead over the trainer's steps, after a resumption with another epoch length.
    steps_ahead = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        host = self.host
        self.blocks = read_blocks(lambda name: host.read_block(args, kwargs, name))
        terms = build_terms(self.blocks.regularizers, self.blocks.remedy)
        self.last_terms: dict[str, Tensor] = {}
        self.without_labels = host.without_labels(args, kwargs)
        host.initialize(self, super().__init__, args, kwargs)
        self.regularizers: Any = nn.ModuleDict(terms)

    @property
    def learnable_params(self) -> list[dict[str, Any]]:
        """Return solo-learn's groups of parameters and the regularizers'."""
        params = list(self.regularizers.parameters())
        own = [{"name": "regularizers", "params": params}] if params else []
        return super().learnable_params + own

    def configure_callbacks(self) -> list[Any]:
        """Return solo-learn's callbacks and ours: divergence, run summary and, if asked for, the monitor."""
        callback = self.host.pl.Callback
        divergence = mixed_in(DivergenceCallback, callback)(self.host, self.blocks.divergence.patience)
        summary = mixed_in(RunSummary, callback)(self.host)
        callbacks = [*super().configure_callbacks(), divergence, summary]
        if self.blocks.monitor is None:
            return callbacks
        names = {module: name for name, module in self.named_modules()}
        watched = names[self.host.backbone(self)], projector_name(self)
        support = MonitorSupport(self.host, divergence)
        return [*callbacks, BlockMonitor(self.blocks.monitor, *watched, support)]

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Return solo-learn's outputs, with the terms of the features in ``loss``."""
        self.last_terms.clear()
        out = super().training_step(batch, batch_idx)
        if self.without_labels:  # the online classifier's loss, a mean over no images, is NaN
            out["loss"] = sum(0.0 * logits.sum() for logits in out["logits"])
        views = out["feats"][: self.num_large_crops]
        momentum_views = out.get("momentum_feats", ())
        for term in regularize(self, "features", views, momentum_views):
            out["loss"] = out["loss"] + term
        return out


def regularize(
    module: Any, where: str, views: Sequence[Tensor], momentum_views: Sequence[Tensor]
) -> Iterator[Tensor]:
    """Yield the weighted terms of this epoch that look at ``where``, and log each under its own name."""
    # Half precision is promoted once, so that all terms gather the same tensors.
    views, momentum_views = (
        [v.to(torch.promote_types(v.dtype, torch.float32)) for v in group]
        for group in (views, momentum_views)
    )
    for name, term in module.regularizers.items():
        if term.where != where:
            continue
        if not term.active(module.current_epoch):
            # DistributedDataParallel wants a gradient for every parameter, at all times.
            yield from (0 * parameter.sum() for parameter in term.parameters())
            continue
        value = term(views, momentum_views)
        same = getattr(term.regularizer, "same_on_all_processes", False)
        module.log(f"train_{name}", value, on_epoch=True, **average_over_processes(same))
        module.last_terms[name] = value.detach()
        yield term.weight * value


class EmbeddingHooks(Mixin):
    """The hooks above a method: regularizers of the embeddings, and a normalization behind the projector."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with one_line_in_scripts("build"):
            super().__init__(*args, **kwargs)
            wanted = [name for name, term in self.regularizers.items() if term.where == "embeddings"]
            if wanted and find_projector(self) is None:
                place = REMEDY if wanted[0] in self.blocks.remedy else "regularizers"
                raise ConfigError(
                    f"{place}.{wanted[0]}.where: 'embeddings' is not allowed for {type(self).__name__}, "
                    "which has no projector; use features."
                )
            if self.blocks.projector is not None:
                self._normalize_projectors()

    def _normalize_projectors(self) -> None:
        """Append the layer of the ``projector:`` block to the projector and to its momentum copy."""
        names = [name for prefix in ("", "momentum_") if (name := projector_name(self, prefix))]
        if not names:
            raise ConfigError(f"projector: {type(self).__name__} has no projector; leave the block out.")
        for name in names:
            projector = self.get_submodule(name)
            with torch.no_grad(), evaluation_mode(projector):  # no random numbers, and no running statistics
                width = projector(torch.zeros(2, self.features_dim)).shape[1]
            layer = self.blocks.projector.layer(width)
            if name.startswith("momentum_"):
                layer.requires_grad_(False)  # like the rest of the copy
            if isinstance(projector, nn.Sequential):
                projector.append(layer)  # this keeps the names of the weights
            else:
                parent, _, attribute = name.rpartition(".")
                setattr(self.get_submodule(parent), attribute, nn.Sequential(projector, layer))

    def on_fit_start(self) -> None:
        """Refuse groups that the batch cannot whiten."""
        super().on_fit_start()
        batch = self.batch_size * self.trainer.world_size
        layers = [layer for layer in self.modules() if isinstance(layer, DecorrelatedBatchNorm)]
        size = max((layer.num_features // layer.num_groups for layer in layers), default=0)
        if size >= batch:
            block = "projector" if self.blocks.projector else "method_kwargs"
            with one_line_in_scripts("train"):
                raise ConfigError(
                    f"{block}.num_groups: gives groups of {size} axes, which a batch of {batch} cannot "
                    "whiten; raise num_groups or optimizer.batch_size."
                )

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the method's loss plus the terms on its embeddings."""
        with shared_gathers():
            if all(term.where != "embeddings" for term in self.regularizers.values()):
                return super().training_step(batch, batch_idx)
            with (
                outputs_of(find_projector(self)) as embeddings,
                outputs_of(find_projector(self, "momentum_")) as momentum,
            ):
                loss = super().training_step(batch, batch_idx)
            large = self.num_large_crops
            return loss + sum(regularize(self, "embeddings", embeddings[:large], momentum[:large]))


def find_projector(module: nn.Module, prefix: str = "") -> nn.Module | None:
    """Return the module that makes the embeddings, or its momentum copy; return None without one."""
    name = projector_name(module, prefix)
    return module.get_submodule(name) if name else None


def projector_name(module: nn.Module, prefix: str = "") -> str | None:
    """Return the name of the module that makes the embeddings, or of its momentum copy."""
    modules = dict(module.named_modules())
    return next((prefix + name for name in PROJECTORS if prefix + name in modules), None)


@contextmanager
def outputs_of(module: nn.Module | None) -> Iterator[list[Tensor]]:
    """Collect the outputs of a module in the order of its calls; large crops come first.

    The outputs are copies, through which gradients pass. Later operations may change the originals in place.
    """
    collected: list[Tensor] = []
    if module is None:
        yield collected
        return
    with module.register_forward_hook(lambda _module, _inputs, output: collected.append(output.clone())):
        yield collected
