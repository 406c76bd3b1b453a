"""Gather tensors over processes with exact gradients.

A loss that each of W processes computes on the gathered batch equals the loss of one process on the
concatenated batch. Its gradient is equal too, once DistributedDataParallel has averaged the gradients of the
parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

# The tensors that a step has gathered, by id, version and whether there is a graph. The tensor itself is kept
# too, since its id could otherwise become the id of another one.
_Gathered = dict[tuple[int, int, bool], tuple[Tensor, Tensor]]
_step: _Gathered | None = None
# The process group, and the number of rows of each of its processes when they were last compared.
_agreed: tuple[Any, int] | None = None


def world_size() -> int:
    """Return the number of processes, or 1 without an initialized process group."""
    return dist.get_world_size() if _initialized() else 1


def rank() -> int:
    """Return the rank of this process, or 0 without an initialized process group."""
    return dist.get_rank() if _initialized() else 0


def all_gather(x: Tensor) -> Tensor:
    """Concatenate the ``x`` (B, ...) of all W processes to (W * B, ...), in the order of their ranks.

    The gradient that reaches ``x`` is the sum, over all processes, of their gradients of its rows. Without an
    initialized process group, or with a group of one, ``x`` is returned unchanged. Inside
    :func:`shared_gathers`, a tensor is sent once, however many losses ask for it.

    Raises:
        ValueError: the processes do not hold equally many rows. A GPU is not waited for: there, a process
            raises if its number of rows differs from the step before, and the launcher ends the other ones.
    """
    if world_size() == 1:
        return x
    if _step is None:
        return _gather_equal(x)
    key = id(x), x._version, torch.is_grad_enabled()
    if key not in _step:
        _step[key] = x, _gather_equal(x)
    return _step[key][1]


def all_mean(x: Tensor, rows: int) -> Tensor:
    """Average ``x``, itself a mean over the ``rows`` samples of this process, over all processes.

    The gradient that reaches ``x`` is the mean, over all processes, of their gradients of the average.
    Without an initialized process group, or with a group of one, ``x`` is returned unchanged.

    Raises:
        ValueError: the processes do not hold equally many rows; for a GPU see :func:`all_gather`.
    """
    if world_size() == 1:
        return x
    agreed, wide = _agreed_rows(rows, x.device), _widened(x)
    counts = wide.new_zeros(world_size())
    counts[rank()] = rows
    means = _AllMean.apply(torch.cat([wide.flatten(), counts]))
    mean, counts = means[: x.numel()], means[x.numel() :].detach() * world_size()
    if rows != agreed or counts.is_cpu:  # a GPU is not waited for
        _agree(counts)
    return mean.view_as(x).to(x.dtype)


@contextmanager
def shared_gathers() -> Iterator[None]:
    """Gather each tensor once within the context, for example a training step, for all that ask for it."""
    global _step
    outer, _step = _step, {}
    try:
        yield
    finally:
        _step = outer


def broadcast(x: Tensor, source: int = 0) -> Tensor:
    """Return the ``x`` of one process, by its rank, on every process, for choices that all must share."""
    if world_size() > 1:
        dist.broadcast(x, src=source)
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


def _gather_equal(x: Tensor) -> Tensor:
    """Gather ``x``, and compare the numbers of rows in the same message.

    All messages have the size that was agreed on. A message of another size would end the other processes in
    the middle of a collective, or be taken for theirs. A process with another number of rows therefore sends
    as many rows as all expect, and the number that it has.
    """
    agreed, wide = _agreed_rows(len(x), x.device), _widened(x)
    fitting = wide if len(x) == agreed else wide.new_zeros(agreed, *x.shape[1:])
    message = torch.cat([fitting, wide.new_full((1, *x.shape[1:]), len(x))])
    received = _AllGather.apply(message).unflatten(0, (world_size(), agreed + 1))
    counts = received[:, agreed].detach().reshape(world_size(), -1)[:, 0]
    if len(x) != agreed or counts.is_cpu:  # a GPU is not waited for
        _agree(counts)
    if len(x) != agreed:
        return _gather_equal(x)
    return received[:, :agreed].flatten(0, 1).to(x.dtype)


def _widened(x: Tensor) -> Tensor:
    """Return ``x`` in a dtype that can also hold a number of rows."""
    return x.to(torch.promote_types(x.dtype, torch.float32 if x.is_floating_point() else torch.long))


def _agreed_rows(count: int, device: torch.device) -> int:
    """Return the number of rows that was last agreed on; in a new process group, compare ``count`` first."""
    if _agreed is None or _agreed[0] is not dist.group.WORLD:
        counts = [torch.empty(1, dtype=torch.long, device=device) for _ in range(world_size())]
        dist.all_gather(counts, torch.tensor([count], device=device))
        return _agree(torch.cat(counts))
    return _agreed[1]


def _agree(counts: Tensor) -> int:
    """Store and return the number of rows that all processes hold.

    Raises:
        ValueError: the processes hold different numbers.
    """
    global _agreed
    by_rank = [round(count) for count in counts.tolist()]
    if len(set(by_rank)) > 1:
        raise ValueError(
            f"all processes must hold equally many samples, but by rank they hold {by_rank}: "
            "drop the last, incomplete batch."
        )
    _agreed = dist.group.WORLD, by_rank[0]
    return by_rank[0]


def _initialized() -> bool:
    return dist.is_available() and dist.is_initialized()
