"""The built-in plugin of feature decorrelation: ``shuffled_dbn`` and the regularizer ``decorrelation``."""

from __future__ import annotations

from typing import Any, ClassVar

from solo_dimreg.nn import Decorrelation
from solo_dimreg.plugins.hookspecs import hookimpl


class DecorrelationRegularizer(Decorrelation):
    """`Decorrelation` on the embeddings, unless a config says otherwise."""

    defaults: ClassVar[dict[str, Any]] = {"where": "embeddings"}


@hookimpl
def register_methods(host: Any) -> dict[str, type]:
    """Return the method of feature decorrelation for this solo-learn."""
    from solo_dimreg.methods.shuffled_dbn import make_shuffled_dbn

    return {"shuffled_dbn": make_shuffled_dbn(host.Method)}


@hookimpl
def register_regularizers() -> dict[str, type]:
    """Return the penalty on correlated and vanishing axes."""
    return {"decorrelation": DecorrelationRegularizer}
