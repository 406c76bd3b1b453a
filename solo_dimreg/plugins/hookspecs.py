"""The hooks of a plugin. Each returns a dict of name -> class or function."""

from __future__ import annotations

from typing import Any

from pluggy import HookimplMarker, HookspecMarker

hookspec = HookspecMarker("solo_dimreg")
hookimpl = HookimplMarker("solo_dimreg")


@hookspec
def register_methods(host: Any) -> dict[str, type]:
    """Return self-supervised methods for ``method:``: classes derived from ``host.Method``."""


@hookspec
def register_regularizers() -> dict[str, type]:
    """Return regularizers for ``regularizers:``: ``nn.Module`` classes that take (views, momentum_views)."""


@hookspec
def register_backbones() -> dict[str, Any]:
    """Return backbones for ``backbone.name``: callables ``(**kwargs) -> nn.Module`` with ``num_features``."""


@hookspec
def register_metrics() -> dict[str, Any]:
    """Return metrics for ``monitor.metrics``: callables ``(features: (B, D)) -> scalar``."""


@hookspec
def register_claims() -> dict[str, Any]:
    """Return claims for ``solo-dimreg claims``: mappings with the keys of a question of a study file."""
