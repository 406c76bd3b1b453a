"""Buffers that stay in float32 when the module is converted to half precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Float32Buffers(nn.Module):
    """A module whose floating-point buffers follow it to other devices, but stay in float32 at least.

    A running average in bfloat16 would stop moving long before it reaches its value, by rounding.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Any:
        before = dict(self._buffers)
        super()._apply(fn, *args, **kwargs)
        for name, buffer in self._buffers.items():
            kept = before[name]
            if buffer is not None and kept is not None and buffer.dtype in (torch.float16, torch.bfloat16):
                self._buffers[name] = kept.to(buffer.device, torch.promote_types(kept.dtype, torch.float32))
        return self
