"""Restore the lazy buffers, which solo-learn creates during training and saves but cannot load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from solo_dimreg.errors import ConfigError
from solo_dimreg.solo_learn.mixins import Mixin

# The names by solo-learn's class. SwAV and DeepCluster v2 create their buffers when a training begins, also a
# resumed one. All4One's buffer is a cache, which its first batch creates.
LATE = {
    "All4One": ("pos_enc.penc.penc.cached_penc",),
    "DeepClusterV2": ("local_memory_index", "local_memory_embeddings"),
    "SwAV": ("queue",),
}


class LateBuffers(Mixin):
    """A mixin that creates lazy buffers before a checkpoint is loaded, and restores their values.

    A checkpoint holds the buffers of the first process; in a training with several, all begin with them.
    """

    loaded: tuple[str, ...] = ()

    def load_state_dict(self, state_dict: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        """Load the state dict with the lazy buffers, for an evaluation and for a training."""
        late = [name for kind in type(self).__mro__ for name in LATE.get(kind.__name__, ())]
        self.loaded = tuple(dict.fromkeys(name for name in late if name in state_dict))
        for name in self.loaded:
            path, _, last = name.rpartition(".")
            empty = torch.empty_like(state_dict[name], device=self.device)
            self.get_submodule(path).register_buffer(last, empty)
        return super().load_state_dict(state_dict, *args, **kwargs)

    def on_train_start(self) -> None:
        """Restore the lazy buffers that solo-learn has just created anew.

        Raises:
            ConfigError: The buffers of this training have other sizes.
        """
        loaded = {name: self.get_buffer(name) for name in self.loaded}
        self.loaded = ()
        super().on_train_start()
        for name, value in loaded.items():
            made = self.get_buffer(name)
            if made.shape != value.shape:
                raise ConfigError(
                    f"The checkpoint's {name} has the size {tuple(value.shape)}, this training's has "
                    f"{tuple(made.shape)}: resume with the data, optimizer.batch_size, method_kwargs and "
                    "number of processes of the first run."
                )
            made.copy_(value)
