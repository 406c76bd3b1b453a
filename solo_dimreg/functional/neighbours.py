"""Distances to the nearest neighbours, found by one matrix product.

The product loses distances that are small against the length of the features. On a CPU these are computed
again from differences, and the few queries whose neighbours it could confuse are searched by differences
alone. On other devices, where no step may wait for what another has found, the product is in float64, and the
distances to all candidates are computed from differences. It still confuses the neighbours in a group of more
than k + 8 rows that lie closer to each other than 1e-7 of their distance to most others; a device without
float64 multiplies in float32, where that is 1e-3.

``torch.compile`` does not trace search and gradient; it calls custom operators of ``torch`` in their place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from solo_dimreg.functional._precision import WITHOUT_FLOAT64, full_products

# Tests set it, to run on the CPU what other devices run.
SHAPED_FOR_CUDA = False
# The candidates beyond the k nearest. On a CPU, one is enough for k up to 2: few queries are searched again.
_MARGIN = 8
# A neighbour is close if its squared distance is this many times below the squared length of the query.
_CLOSE = 4.0
# The most bytes that differences, or squared distances, take at a time outside of a CPU. You may set it.
MAX_BYTES = 2**31
_NUMBERS_ON_CPU = 2**21  # they fit into its cache
# In the gradient, so many fit into the cache of one core; a block has this many columns at least.
_NUMBERS_OF_BLOCK, _LEAST_COLUMNS = 2**18, 64
# On a CPU each product serves two queries within a set of so many rows (the most take 1 GiB in float32), of
# which a tile is multiplied at a time.
_WITHIN, _TILE = range(257, 2**14 + 1), 256


def nearest_neighbours(
    x: Tensor, reference: Tensor, k: int, self_indices: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the distances to the k nearest rows of ``reference``, ascending, and the rows, (B, k) each.

    The distances can be differentiated once, in ``x`` and in ``reference``. A distance of 0 has gradient 0.
    Which of two neighbours is the k-th is not defined if their distances differ by less than the rounding
    error, and the gradient of such a query is that of either. Among 1,536 Gaussian features of as many
    axes there is one such query; it alone makes an error of 4e-2 in the norm of the gradient of LDReg's loss,
    whose other rows are right to 1e-5.

    Queries (B, D) and reference (N, D) are both float32 or both float64. ``self_indices`` (B,) is the row of
    each query in the reference, which is left out. k is at most N, or N - 1 with them.
    """
    within = _are_one(x, reference)
    scale = _power_of_two(x.detach(), None if within else reference.detach())
    queries = x * scale
    if not within or (reference is not x and reference.requires_grad):
        others = reference * scale
    else:
        others = queries if reference is x else queries.detach()
    distances, neighbours = _Differentiable.apply(queries, others, k, self_indices)
    return distances / scale, neighbours


def _are_one(x: Tensor, reference: Tensor) -> bool:
    """Return whether both are the same numbers in memory, as far as that can be known."""
    if torch.compiler.is_compiling():
        return False
    if x is reference or not type(x) is type(reference) is Tensor:
        return x is reference  # the memory of a subclass does not tell
    try:
        pointer = x.data_ptr()  # 0 without memory
        same = pointer != 0 and pointer == reference.data_ptr() and x.is_neg() == reference.is_neg()
    except RuntimeError:  # within torch.func
        return False
    return same and x.shape == reference.shape and x.stride() == reference.stride()


def _power_of_two(x: Tensor, reference: Tensor | None) -> Tensor:
    """Return the power of two that scales the largest entry to about 2^50, or 1 if it is 0 or not finite.

    Scaling by a power of two is exact. Around 2^50 squares have room above, and far more room below, where an
    outlier leaves the other points.
    """
    ends = [*x.aminmax(), *(() if reference is None else reference.aminmax())]
    size = torch.stack(ends).abs().max()
    most = 126 if x.dtype == torch.float32 else 1022
    return (50 - size.log2().floor()).nan_to_num(0, 0, 0).clamp(-most, most).exp2()


def find_neighbours(
    x: Tensor, reference: Tensor, k: int, self_indices: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Do the work of :func:`nearest_neighbours`, without a gradient, if the squares fit into the dtype."""
    if torch.compiler.is_compiling():
        return _find_operator(x, reference, k, self_indices)
    return _find(x, reference, k, self_indices)


def _find(x: Tensor, reference: Tensor, k: int, self_indices: Tensor | None) -> tuple[Tensor, Tensor]:
    queries, others = _centred(x, reference) if _on_cpu(x) else _centred_widely(x, reference)
    lengths = _squared_lengths(others)
    margin = 1 if k <= 2 and _on_cpu(x) else _MARGIN
    candidates = min(k + margin, len(reference) - (self_indices is not None))
    all_distances, all_neighbours = _find_fake(x, reference, k, self_indices)
    within = None
    if _on_cpu(x) and len(x) in _WITHIN and _are_one(x, reference):
        within = _squares_within(queries, lengths)
    for rows in _chunks(queries, len(reference)):
        itself = None if self_indices is None else self_indices[rows, None]
        squares = _squares(queries[rows], others, lengths) if within is None else within[rows]
        if itself is not None:
            squares.scatter_(1, itself, torch.inf)
        squares, neighbours = squares.topk(candidates, dim=1, largest=False)
        if _on_cpu(x):
            own = _squared_lengths(queries[rows])[:, None]
            distances, neighbours = _corrected(x[rows], reference, own, squares + own, neighbours, k, itself)
        else:
            distances, order = _distances(x[rows], reference, neighbours).sort(dim=1)
            neighbours = neighbours.gather(1, order)
        all_distances[rows], all_neighbours[rows] = distances[:, :k], neighbours[:, :k]
    return all_distances, all_neighbours


def _squares(queries: Tensor, others: Tensor, lengths: Tensor) -> Tensor:
    """Return the squared distances of all pairs, less the squared length of the query."""
    with full_products():
        return torch.addmm(lengths, queries, others.T, alpha=-2)


def _squares_within(x: Tensor, lengths: Tensor) -> Tensor:
    """Return the same for all pairs of one set, by half of the products."""
    squares = x.new_empty(len(x), len(x))
    for start in range(0, len(x), _TILE):
        stop = min(start + _TILE, len(x))
        part = squares[start:stop, start:]
        with full_products():
            torch.addmm(lengths[start:], x[start:stop], x[start:].T, alpha=-2, out=part)
        more = lengths[start:stop] - lengths[stop:, None]
        torch.add(part[:, stop - start :].T, more, out=squares[stop:, start:stop])
    return squares


_find_operator = torch.library.custom_op("solo_dimreg::nearest_neighbours", _find, mutates_args=())


@_find_operator.register_fake
def _find_fake(x: Tensor, reference: Tensor, k: int, self_indices: Tensor | None) -> tuple[Tensor, Tensor]:
    return x.new_empty(len(x), k), x.new_empty(len(x), k, dtype=torch.long)


def _corrected(
    x: Tensor,
    reference: Tensor,
    own: Tensor,
    squares: Tensor,
    neighbours: Tensor,
    k: int,
    itself: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return distances and neighbours from squared distances (B, C), with the close ones made accurate.

    ``own`` is the squared length of each query, (B, 1).
    """
    close = squares * _CLOSE < own
    distances = squares.clamp_min(0).sqrt()
    pairs = close.nonzero()
    if not len(pairs):
        return distances, neighbours
    for query, place in (part.unbind(dim=1) for part in pairs.split(_NUMBERS_ON_CPU // x.shape[1] + 1)):
        differences = x[query].sub_(reference[neighbours[query, place]])
        distances[query, place] = torch.linalg.vector_norm(differences, dim=1)
    distances, order = distances.sort(dim=1)
    neighbours = neighbours.gather(1, order)
    if squares.shape[1] < len(reference) - (itself is not None):
        # No other row is nearer than the farthest candidate, up to the rounding error of an inner product:
        # a small multiple of sqrt(D) epsilons of the lengths.
        radius = distances[:, k - 1 : k]
        error = (
            (4 + math.sqrt(x.shape[1])) * torch.finfo(x.dtype).eps * (own + (own.sqrt() + radius).square())
        )
        unproven = close[:, k - 1 : k] & (radius > 0) & (radius.square() > squares[:, -1:] - error)
        for again in unproven[:, 0].nonzero()[:, 0].split(_NUMBERS_ON_CPU // len(reference) + 1):
            exact = torch.cdist(x[again], reference, compute_mode="donot_use_mm_for_euclid_dist")
            if itself is not None:
                exact.scatter_(1, itself[again], torch.inf)
            distances[again, :k], neighbours[again, :k] = exact.topk(k, dim=1, largest=False)
    return distances, neighbours


def _distances(x: Tensor, reference: Tensor, neighbours: Tensor) -> Tensor:
    """Return the distance of each query to its neighbours (B, C), from their differences."""
    distances = x.new_empty(neighbours.shape)
    for rows in _chunks(x, neighbours.shape[1] * x.shape[1]):
        differences = reference[neighbours[rows]].sub_(x[rows, None])
        torch.linalg.vector_norm(differences, dim=2, out=distances[rows])
    return distances


def _distances_backward(
    x: Tensor, reference: Tensor, distances: Tensor, neighbours: Tensor, grad: Tensor, for_reference: bool
) -> tuple[Tensor, Tensor]:
    """Return the gradients of ``x``, and of ``reference`` if asked for, from those of the distances (B, k).

    The gradient of a query is ``sum_j w_ij (x_i - y_j)`` with the weights ``w = grad / distance``. A distance
    of 0, or one so small that its weight could overflow, has weight 0.
    """
    weights = grad / F.threshold(distances, torch.finfo(x.dtype).tiny ** 0.5, math.inf)
    grad_x, grad_reference = _backward_fake(x, reference, distances, neighbours, grad, for_reference)
    if not _on_cpu(x):
        if for_reference:
            grad_reference.zero_()
        for rows in _chunks(x, neighbours.shape[1] * x.shape[1]):
            differences = reference[neighbours[rows]].sub_(x[rows, None])
            with full_products():
                part = grad_x[rows, None]
                torch.baddbmm(part, weights[rows, None], differences, beta=0, alpha=-1, out=part)
            if for_reference:
                differences.mul_(weights[rows, :, None])
                grad_reference.index_add_(0, neighbours[rows].flatten(), differences.flatten(0, 1))
        return grad_x, grad_reference

    # As a sparse product, sum_j w_ij x_i - sum_j w_ij y_j. It would cancel for close neighbours, but
    # loses only half of the digits that the square of a distance loses.
    own = x.new_zeros(len(x))
    for _, queries, _ in _centred_blocks(x, reference):
        own += _squared_lengths(queries)
    close = distances.square() * _CLOSE**2 < own[:, None]
    of_far = weights.masked_fill(close, 0)
    k, totals = distances.shape[1], of_far.sum(dim=1, keepdim=True)
    if for_reference:
        others_of_pairs, order = neighbours.flatten().sort()
        bags = torch.searchsorted(others_of_pairs, torch.arange(len(reference), device=x.device))
        sorted_weights = of_far.flatten()[order]
        totals_of_others = x.new_zeros(len(reference)).index_add_(0, others_of_pairs, sorted_weights)[:, None]
    for columns, queries, others in _centred_blocks(x, reference):
        sums = F.embedding_bag(neighbours, others, per_sample_weights=of_far, mode="sum")
        torch.addcmul(sums.neg_(), totals, queries, out=grad_x[:, columns])
        if for_reference:
            sums = F.embedding_bag(order // k, queries, bags, per_sample_weights=sorted_weights, mode="sum")
            torch.addcmul(sums.neg_(), totals_of_others, others, out=grad_reference[:, columns])
    pairs = close.nonzero()
    for query, place in (part.unbind(dim=1) for part in pairs.split(_NUMBERS_ON_CPU // x.shape[1] + 1)):
        other = neighbours[query, place]
        directions = x[query].sub_(reference[other]).mul_(weights[query, place, None])
        grad_x.index_add_(0, query, directions)
        if for_reference:
            grad_reference.index_add_(0, other, directions, alpha=-1)
    return grad_x, grad_reference


_backward_operator = torch.library.custom_op(
    "solo_dimreg::distances_backward", _distances_backward, mutates_args=()
)


@_backward_operator.register_fake
def _backward_fake(
    x: Tensor, reference: Tensor, distances: Tensor, neighbours: Tensor, grad: Tensor, for_reference: bool
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(reference) if for_reference else x.new_empty(0)


class _Differentiable(torch.autograd.Function):
    """The search with its gradient; ``torch.func`` needs this form of it."""

    @staticmethod
    def forward(x: Tensor, reference: Tensor, k: int, self_indices: Tensor | None) -> tuple[Tensor, Tensor]:
        return find_neighbours(x, reference, k, self_indices)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:2], *output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, Tensor | None, None, None]:
        if grad is None:
            return None, None, None, None
        for_reference = ctx.needs_input_grad[1]
        inputs = (*ctx.saved_tensors, grad, for_reference)
        if torch.compiler.is_compiling():
            grad_x, grad_reference = _backward_operator(*inputs)
        else:
            grad_x, grad_reference = _distances_backward(*inputs)
        return grad_x, grad_reference if for_reference else None, None, None


def _on_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" and not SHAPED_FOR_CUDA


def _chunks(x: Tensor, numbers: int) -> Iterator[slice]:
    """Return slices of the rows of ``x``, with so many numbers of its dtype each, within the limit."""
    size = max(1, (_NUMBERS_ON_CPU if _on_cpu(x) else MAX_BYTES // x.element_size()) // numbers)
    return (slice(start, min(start + size, len(x))) for start in range(0, len(x), size))


def _centred(x: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Return both without the mean of the reference; the shorter they are, the better is their product."""
    centre = reference.mean(dim=0).nan_to_num(0, 0, 0)
    others = reference - centre
    return others if _are_one(x, reference) else x - centre, others


def _centred_blocks(x: Tensor, reference: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield so many columns of both without the mean of the reference that they fit into a cache."""
    width = max(_NUMBERS_OF_BLOCK // len(reference), _LEAST_COLUMNS)
    within = _are_one(x, reference)
    for start in range(0, x.shape[1], width):
        columns = slice(start, min(start + width, x.shape[1]))
        centre = reference[:, columns].mean(dim=0).nan_to_num(0, 0, 0)
        others = reference[:, columns] - centre
        yield columns, others if within else x[:, columns] - centre, others


def _centred_widely(x: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in float64 without the median of at most 256 rows, which no outlier moves."""
    if x.device.type in WITHOUT_FLOAT64:
        return _centred(x, reference)
    few = reference[:: len(reference) // 256 + 1]
    centre = few.sort(dim=0).values[len(few) // 2].nan_to_num(0, 0, 0).double()
    others = reference.double() - centre
    return others if x is reference else x.double() - centre, others


def _squared_lengths(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=1).square()
