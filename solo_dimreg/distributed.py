"""Gathering over processes with exact gradients.

A loss that each of W processes computes on the gathered batch equals the loss of one process on the
concatenated batch; so does its gradient, once DistributedDataParallel has averaged the gradients of the
parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


class _Step(NamedTuple):
    equal_rows: set[int]
    # By identity, version and whether there is a graph; with the tensor, or its id could become another's.
    gathered: dict[tuple[int, int, bool], tuple[Tensor, Tensor]]


_step: _Step | None = None


def world_size() -> int:
    """The number of processes, 1 without an initialized process group."""
    return dist.get_world_size() if _initialized() else 1


def rank() -> int:
    """The rank of this process, 0 without an initialized process group."""
    return dist.get_rank() if _initialized() else 0


def all_gather(x: Tensor) -> Tensor:
    """Concatenates the ``x`` of all processes along the first axis, in the order of their ranks.

    The gradient that reaches ``x`` is the sum, over all processes, of their gradients of its rows. Without an
    initialized process group, or with a group of one, ``x`` is returned as it is.

    Args:
        x: shape (B, ...), the same on every process.

    Inside :func:`shared_gathers`, a tensor is sent once, however many losses ask for it.

    Returns:
        Shape (W * B, ...).

    Raises:
        ValueError: the processes do not hold equally many rows.
    """
    if world_size() == 1:
        return x
    if _step is None:
        _check_equal_rows(len(x), x.device)
        return _AllGather.apply(x)
    key = id(x), x._version, torch.is_grad_enabled()
    if key not in _step.gathered:
        _check_equal_rows(len(x), x.device)
        _step.gathered[key] = x, _AllGather.apply(x)
    return _step.gathered[key][1]


def all_mean(x: Tensor, rows: int) -> Tensor:
    """Averages ``x``, itself a mean over the ``rows`` samples of this process, over all processes.

    The gradient that reaches ``x`` is the mean, over all processes, of their gradients of the average.
    Without an initialized process group, or with a group of one, ``x`` is returned as it is.

    Raises:
        ValueError: the processes do not hold equally many rows.
    """
    if world_size() == 1:
        return x
    _check_equal_rows(rows, x.device)
    return _AllMean.apply(x)


@contextmanager
def shared_gathers(rows: int) -> Iterator[None]:
    """Within, such as in a training step, each tensor is gathered once for all that ask for it.

    Args:
        rows: The batch size that all processes are known to have: it is not compared, which would be one more
            collective, for which the device is waited for. Other numbers of rows are compared, once.
    """
    global _step
    outer, _step = _step, _Step({rows}, {})
    try:
        yield
    finally:
        _step = outer


def broadcast(x: Tensor) -> Tensor:
    """The ``x`` of rank 0 on every process: for random choices that all processes must share."""
    if world_size() > 1:
        dist.broadcast(x, src=0)
    return x


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        gathered = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(gathered, x.contiguous())
        return torch.cat(gathered)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(world_size())[rank()]


class _AllMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _mean_of_all(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _mean_of_all(grad)


def _mean_of_all(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total / world_size()


def _check_equal_rows(count: int, device: torch.device) -> None:
    """Compares them, within :func:`shared_gathers` once only."""
    if _step is not None and count in _step.equal_rows:
        return
    rows = [torch.empty(1, dtype=torch.long, device=device) for _ in range(world_size())]
    dist.all_gather(rows, torch.tensor([count], device=device))
    counts = torch.cat(rows).tolist()
    if len(set(counts)) > 1:
        raise ValueError(
            f"all processes must hold equally many samples, but by rank they hold {counts}: "
            "drop the last, incomplete batch."
        )
    if _step is not None:
        _step.equal_rows.add(count)


def _initialized() -> bool:
    return dist.is_available() and dist.is_initialized()
