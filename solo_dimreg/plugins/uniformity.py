"""The built-in plugin of ``uniformity``, ``wasserstein_uniformity`` and ``koleo``, which spread features."""

from __future__ import annotations

from typing import Any, ClassVar

from solo_dimreg.nn import KoLeo, Uniformity, WassersteinUniformity
from solo_dimreg.plugins.hookspecs import hookimpl


class UniformityRegularizer(Uniformity):
    """`Uniformity` on the embeddings, unless a config says otherwise."""

    defaults: ClassVar[dict[str, Any]] = {"where": "embeddings"}


class WassersteinUniformityRegularizer(WassersteinUniformity):
    """`WassersteinUniformity` on the embeddings, unless a config says otherwise."""

    defaults: ClassVar[dict[str, Any]] = {"where": "embeddings"}


@hookimpl
def register_regularizers() -> dict[str, type]:
    """Return the three regularizers; KoLeo works on the features by default, as in DINOv2."""
    return {
        "koleo": KoLeo,
        "uniformity": UniformityRegularizer,
        "wasserstein_uniformity": WassersteinUniformityRegularizer,
    }
