"""The built-in plugin of what spreads features over the sphere: ``uniformity`` and its successors."""

from __future__ import annotations

from typing import Any, ClassVar

from solo_dimreg.nn import KoLeo, Uniformity, WassersteinUniformity
from solo_dimreg.plugins.hookspecs import hookimpl


class UniformityRegularizer(Uniformity):
    """Uniformity of the embeddings, where a config does not say otherwise."""

    defaults: ClassVar[dict[str, Any]] = {"where": "embeddings"}


class WassersteinUniformityRegularizer(WassersteinUniformity):
    """The same of the distance to a Gaussian."""

    defaults: ClassVar[dict[str, Any]] = {"where": "embeddings"}


@hookimpl
def register_regularizers() -> dict[str, type]:
    """Three; KoLeo looks at the features, as in DINOv2."""
    return {
        "koleo": KoLeo,
        "uniformity": UniformityRegularizer,
        "wasserstein_uniformity": WassersteinUniformityRegularizer,
    }
