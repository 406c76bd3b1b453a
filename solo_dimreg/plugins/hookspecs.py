"""What a plugin can add. Each hook returns a dict of name -> class or function."""

from __future__ import annotations

from typing import Any

from pluggy import HookimplMarker, HookspecMarker

hookspec = HookspecMarker("solo_dimreg")
hookimpl = HookimplMarker("solo_dimreg")


@hookspec
def register_methods(host: Any) -> dict[str, type]:
    """Self-supervised methods, for ``method:``; classes derived from ``host.Method``."""


@hookspec
def register_regularizers() -> dict[str, type]:
    """Regularizers, for ``regularizers:``; ``nn.Module`` classes called with (views, momentum_views)."""


@hookspec
def register_backbones() -> dict[str, Any]:
    """Backbones, for ``backbone.name``; callables ``(**kwargs) -> nn.Module`` with ``num_features``."""


@hookspec
def register_metrics() -> dict[str, Any]:
    """Figures of a representation, for ``monitor.metrics``; callables ``(features: (B, D)) -> scalar``."""


@hookspec
def register_claims() -> dict[str, Any]:
    """Claims for ``solo-dimreg claims``; objects of ``solo_dimreg.studies.claims.claim.Claim``."""
