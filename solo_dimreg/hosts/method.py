"""The base class on which a method is written once, for both solo-learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from solo_dimreg.errors import ConfigError
from solo_dimreg.hosts.tap import ReadBlock
from solo_dimreg.regularization import check_keys, parameter_names


def make_method_base(base: type, read_block: ReadBlock) -> type:
    """A subclass of solo-learn's ``BaseMethod`` that hides how the two solo-learns construct a method."""

    class Method(base):  # type: ignore[misc, valid-type]
        """Write ``build``, ``embed`` and ``loss``; the rest is the same in both solo-learns.

        The parameters of ``build``, all with defaults, are the keys of ``method_kwargs`` in the config.
        """

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            options: Mapping[str, Any] = read_block(args, kwargs, "method_kwargs") or {}
            check_keys("method_kwargs", options, parameter_names(type(self).build)[0] - {"self"})
            super().__init__(*args, **kwargs)
            try:
                self.build(**options)
            except (ValueError, TypeError) as error:
                raise ConfigError(f"method_kwargs: {error}") from error

        def own_params(self) -> list[dict[str, Any]]:
            """Parameter groups beyond the backbone and the online classifier."""
            return []

        @property
        def learnable_params(self) -> list[dict[str, Any]]:
            return super().learnable_params + self.own_params()

        def embed(self, features: Tensor) -> Tensor:
            """Embeddings z (B, d) of the backbone's features (B, D)."""
            return features

        def loss(self, features: Sequence[Tensor], embeddings: Sequence[Tensor]) -> dict[str, Tensor]:
            """Losses and figures to log, by name, from the large crops; ``"loss"`` is what is minimized."""
            raise NotImplementedError(f"{type(self).__name__} has no loss")

        def forward(self, X: Tensor, *args: Any, **kwargs: Any) -> dict[str, Any]:
            out = super().forward(X, *args, **kwargs)
            return {**out, "z": self.embed(out["feats"])}

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            out = super().training_step(batch, batch_idx)
            features = out["feats"][: self.num_large_crops]
            # The published solo-learn trains on base_forward, which knows nothing of z.
            embeddings = out["z"] if "z" in out else [self.embed(view) for view in features]
            losses = self.loss(features, embeddings[: self.num_large_crops])
            loss = losses.pop("loss")
            figures = {f"train_{name}": value for name, value in losses.items()}
            self.log_dict(figures, on_epoch=True, sync_dist=True)
            return loss + out["loss"]

    return Method
