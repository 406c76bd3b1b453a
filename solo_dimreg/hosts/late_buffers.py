"""Buffers that solo-learn makes while it trains: it saves them, and can load none of them back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from solo_dimreg.errors import ConfigError

# By solo-learn's class. Those of SwAV and DeepCluster v2 are made when a training begins, also one that is
# resumed; All4One's is a cache, made by its first batch.
LATE = {
    "All4One": ("pos_enc.penc.penc.cached_penc",),
    "DeepClusterV2": ("local_memory_index", "local_memory_embeddings"),
    "SwAV": ("queue",),
}


class LateBuffers:
    """Makes them before a checkpoint is loaded, and gives them its values when the training goes on.

    A checkpoint holds those of the first process: of several, all begin with them.
    """

    loaded: tuple[str, ...] = ()

    def load_state_dict(self, state_dict: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        """Loads the buffers too, for an evaluation as for a training."""
        module: Any = self
        late = [name for kind in type(self).__mro__ for name in LATE.get(kind.__name__, ())]
        self.loaded = tuple(dict.fromkeys(name for name in late if name in state_dict))
        for name in self.loaded:
            path, _, last = name.rpartition(".")
            empty = torch.empty_like(state_dict[name], device=module.device)
            module.get_submodule(path).register_buffer(last, empty)
        return super().load_state_dict(state_dict, *args, **kwargs)  # type: ignore[misc]

    def on_train_start(self) -> None:
        """Puts back what solo-learn has just made anew.

        Raises:
            ConfigError: the buffers of this training have other sizes.
        """
        module: Any = self
        loaded = {name: module.get_buffer(name) for name in self.loaded}
        self.loaded = ()
        super().on_train_start()  # type: ignore[misc]
        for name, value in loaded.items():
            made = module.get_buffer(name)
            if made.shape != value.shape:
                raise ConfigError(
                    f"The checkpoint's {name} is of the size {tuple(value.shape)}, this training's of "
                    f"{tuple(made.shape)}: resume with the data, optimizer.batch_size, method_kwargs and "
                    "number of processes that it was begun with."
                )
            made.copy_(value)
