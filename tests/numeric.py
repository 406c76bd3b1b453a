"""Losses and gradients against a form in NumPy that shares no line with ours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


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


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers, the same in every precision."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def directions(d: int, k: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Unit vectors as columns, (d, k)."""
    return torch.nn.functional.normalize(normal(d, k, seed=1), dim=0).to(dtype)
