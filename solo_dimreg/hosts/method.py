"""The base class on which a method is written once, for both solo-learns."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from solo_dimreg.blocks.regularizers import check_keys, parameter_names
from solo_dimreg.errors import ConfigError


def make_method_base(base: type, read_block: Any) -> type:
    """A subclass of solo-learn's ``BaseMethod`` that hides how the two solo-learns construct a method.

    Args:
        base: ``BaseMethod``.
        read_block: ``Host.read_block``.
    """

    class Method(base, metaclass=ABCMeta):  # type: ignore[misc, valid-type]
        """Write ``build`` and ``loss``; the rest is the same in both solo-learns.

        ``build`` makes ``self.projector`` (features (B, D), D being ``self.features_dim``, to embeddings) and
        what else the method has. Its parameters, all with defaults, are the keys of ``method_kwargs``; where
        it takes any others, so are those of ``criterion``'s constructor.
        """

        projector: nn.Module
        large_crops: int | None = None  # what the method insists on
        uses_small_crops = False  # whether the loss is given those too, after the large ones
        criterion: type | None = None

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            options: Mapping[str, Any] = read_block(args, kwargs, "method_kwargs") or {}
            names, open_ended = parameter_names(type(self).build)
            if open_ended and self.criterion:
                names |= parameter_names(self.criterion)[0]
            check_keys("method_kwargs", options, names - {"self"})
            super().__init__(*args, **kwargs)
            if self.large_crops not in (None, self.num_large_crops):
                name, crops = type(self).__name__, self.num_large_crops
                raise ConfigError(
                    f"augmentations: give {crops} large crops; {name} needs {self.large_crops}."
                )
            try:
                self.build(**options)
            except (ValueError, TypeError) as error:
                raise ConfigError(_with_key("method_kwargs", error)) from error

        def build(self) -> None:
            """Makes ``self.projector``; the identity here."""
            self.projector = nn.Identity()

        @abstractmethod
        def loss(self, features: Sequence[Tensor], embeddings: Sequence[Tensor]) -> dict[str, Tensor]:
            """Losses and figures to log, by name, from the crops; ``"loss"`` is what is minimized."""

        @property
        def learnable_params(self) -> list[dict[str, Any]]:
            params = list(self.projector.parameters())
            own = [{"name": "projector", "params": params}] if params else []
            return super().learnable_params + own

        @property
        def progress(self) -> float:
            """The part of the training that is done, from 0 to 1."""
            steps = self.trainer.estimated_stepping_batches
            return min(1.0, (self.trainer.global_step + getattr(self, "steps_ahead", 0)) / max(1, steps))

        def forward(self, X: Tensor, *args: Any, **kwargs: Any) -> dict[str, Any]:
            out = super().forward(X, *args, **kwargs)
            return {**out, "z": self.projector(out["feats"])}

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            out = super().training_step(batch, batch_idx)
            crops = self.num_crops if self.uses_small_crops else self.num_large_crops
            features = out["feats"][:crops]
            # The published solo-learn trains on base_forward, which knows nothing of z, and the current one
            # sends small crops past the projector.
            embeddings = list(out.get("z", ()))[: self.num_large_crops]
            embeddings += [self.projector(view) for view in features[len(embeddings) :]]
            losses = self.loss(features, embeddings)
            loss = losses.pop("loss")
            figures = {f"train_{name}": value for name, value in losses.items()}
            self.log_dict(figures, on_epoch=True, sync_dist=True)
            return loss + out["loss"]

    return Method


def _with_key(block: str, error: Exception) -> str:
    """The message with the name of the block in front, unless it names one already."""
    text = str(error)
    return text if text.startswith(f"{block}.") else f"{block}: {text}"
