"""Losses and gradients against a form in NumPy that shares no line with ours."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def check_against(ours: Callable[[Tensor], Tensor], theirs: Callable[[np.ndarray], float], x: Tensor) -> None:
    """The same value, and the gradient that central differences of the other form have, in float64."""
    x = x.detach().double().requires_grad_()
    loss = ours(x)
    (gradient,) = torch.autograd.grad(loss, x)
    start = x.detach().numpy()
    np.testing.assert_allclose(loss.item(), theirs(start), rtol=1e-9, atol=1e-12)
    step = 1e-6
    expected = np.empty_like(start)
    for index in np.ndindex(*start.shape):
        shift = np.zeros_like(start)
        shift[index] = step
        expected[index] = (theirs(start + shift) - theirs(start - shift)) / (2 * step)
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-5, atol=1e-7)


class WidestSpectrum(TorchDispatchMode):
    """Records the width of the widest matrix that is decomposed; an SVD counts as infinitely wide."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("_linalg_eigh", "_linalg_svd"):
            self.width = max(self.width, args[0].shape[-1] if name == "_linalg_eigh" else math.inf)
        return func(*args, **(kwargs or {}))


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers, the same in every precision."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def directions(d: int, k: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Unit vectors as columns, (d, k)."""
    return torch.nn.functional.normalize(normal(d, k, seed=1), dim=0).to(dtype)
