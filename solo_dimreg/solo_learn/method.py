"""The base class for methods that are written once for both solo-learns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from solo_dimreg.config.parsing import check_keys, options_of_callable
from solo_dimreg.errors import ConfigError
from solo_dimreg.solo_learn.mixins import Mixin


class Method(ABC, Mixin):
    """A base class for a method: write ``build`` and ``loss``, and it runs in both solo-learns.

    ``build`` sets ``self.projector`` and any other parts of the method. The projector maps features (B,
    D), with D = ``self.features_dim``, to embeddings. The parameters of ``build`` all have defaults, and
    they are the keys of ``method_kwargs``. If ``build`` takes ``**kwargs``, the parameters of the
    constructor of ``criterion`` are keys too.
    """

    host: Any
    projector: nn.Module
    large_crops: int | None = None  # the number that the method requires
    uses_small_crops = False  # whether the loss also gets the small crops, after the large ones
    criterion: type | None = None
    same_on_all_processes = False  # whether all that the loss returns is computed over all processes

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        options: Mapping[str, Any] = self.host.read_block(args, kwargs, "method_kwargs") or {}
        check_keys("method_kwargs", options, self.own_options())
        super().__init__(*args, **kwargs)
        if self.large_crops not in (None, self.num_large_crops):
            name, crops = type(self).__name__, self.num_large_crops
            raise ConfigError(f"augmentations: give {crops} large crops; {name} needs {self.large_crops}.")
        try:
            self.build(**options)
        except (ValueError, TypeError) as error:
            key = "" if str(error).startswith("method_kwargs.") else "method_kwargs: "
            raise ConfigError(f"{key}{error}") from error

    @classmethod
    def own_options(cls) -> dict[str, Any]:
        """Return the keys of ``method_kwargs`` with their defaults."""
        options, open_ended = options_of_callable(cls.build)
        return options | options_of_callable(cls.criterion)[0] if open_ended and cls.criterion else options

    def build(self) -> None:
        """Create ``self.projector``; here it is the identity."""
        self.projector = nn.Identity()

    @abstractmethod
    def loss(self, features: Sequence[Tensor], embeddings: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the losses and metrics to log, by name; ``"loss"`` is minimized."""

    @property
    def learnable_params(self) -> list[dict[str, Any]]:
        """Return solo-learn's groups of parameters and the projector's."""
        params = list(self.projector.parameters())
        own = [{"name": "projector", "params": params}] if params else []
        return super().learnable_params + own

    @property
    def progress(self) -> float:
        """Return the finished part of the training, from 0 to 1."""
        steps = self.trainer.estimated_stepping_batches
        return min(1.0, (self.trainer.global_step + getattr(self, "steps_ahead", 0)) / max(1, steps))

    def forward(self, X: Tensor, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return solo-learn's outputs and the embeddings ``z`` (B, d) of images (B, C, H, W)."""
        out = super().forward(X, *args, **kwargs)
        return {**out, "z": self.projector(out["feats"])}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the method's loss plus the online classifier's, and log what ``loss`` returns."""
        out = super().training_step(batch, batch_idx)
        crops = self.num_crops if self.uses_small_crops else self.num_large_crops
        features = out["feats"][:crops]
        # The published solo-learn trains on base_forward, which returns no z. The current one does not
        # project small crops.
        embeddings = list(out.get("z", ()))[: self.num_large_crops]
        embeddings += [self.projector(view) for view in features[len(embeddings) :]]
        losses = self.loss(features, embeddings)
        loss = losses.pop("loss")
        figures = {f"train_{name}": value for name, value in losses.items()}
        self.log_dict(figures, on_epoch=True, **average_over_processes(self.same_on_all_processes))
        return loss + out["loss"]


def average_over_processes(same: bool) -> dict[str, bool]:
    """Return the options of Lightning's ``log`` for a value of each process.

    A value that is the same on all processes needs no message. With ``rank_zero_only``, Lightning sends none,
    and does not recommend to send one either.
    """
    return {"sync_dist": True, "rank_zero_only": same}
