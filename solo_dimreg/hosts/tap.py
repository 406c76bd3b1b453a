"""Adds terms to the loss of a solo-learn method without a line of it being copied.

Every solo-learn method calls ``super().training_step(...)``, takes ``out["loss"]`` as the loss of the online
classifier and returns its own loss plus that. A class between the method and its base that adds a term to
``out["loss"]`` therefore adds it to the total: ``type("SimCLR", (SimCLR, Tap), {})`` has the method
resolution order SimCLR, Tap, BaseMethod.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from solo_dimreg.regularization import build_terms

ReadBlock = Callable[[tuple[Any, ...], dict[str, Any], str], Mapping[str, Any] | None]


def make_tap(base: type, read_block: ReadBlock) -> type:
    """A subclass of solo-learn's ``base`` that adds the config's regularizers to the loss.

    Args:
        base: ``BaseMethod`` or ``BaseMomentumMethod``; with the latter the regularizers see the features of
            the momentum encoder too.
        read_block: Finds a block of settings, by its name, in the arguments of the constructor.
    """

    class Tap(base):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            terms = build_terms(read_block(args, kwargs, "regularizers"))
            super().__init__(*args, **kwargs)
            self.regularizers: Any = nn.ModuleDict(terms)

        @property
        def learnable_params(self) -> list[dict[str, Any]]:
            params = list(self.regularizers.parameters())
            own = [{"name": "regularizers", "params": params}] if params else []
            return super().learnable_params + own

        def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
            out = super().training_step(batch, batch_idx)
            views = out["feats"][: self.num_large_crops]
            for name, term in self.regularizers.items():
                if term.active(self.current_epoch):
                    value = term(views, out.get("momentum_feats", ()))
                    self.log(f"train_{name}", value, on_epoch=True, sync_dist=True)
                    out["loss"] = out["loss"] + term.weight * value
            return out

    return Tap
