"""T-REG: lengthens the minimum spanning tree of the embeddings on a sphere."""

from __future__ import annotations

import torch
from torch import Tensor

from solo_dimreg.functional._checks import check_between, check_features
from solo_dimreg.functional._precision import full_precision


@full_precision
def t_reg_loss(x: Tensor, sphere_weight: float = 0.004) -> Tensor:
    """Compute minus the length of the minimum spanning tree, plus a pull to the unit sphere [1, eq. 4 to 6].

    The loss is ``-1/B sum over the B - 1 edges of ||x_i - x_j|| + sphere_weight * mean_i (||x_i|| - 1)^2``.
    The gradient runs through the lengths of the edges [1, eq. 3]; the choice of edges is constant almost
    everywhere. An edge of length 0 has gradient 0. SciPy builds the tree on the CPU from all B^2 distances,
    which suits B of hundreds to a few thousand.

    References:
        [1] Mordacq et al., T-REGS: Minimum Spanning Tree Regularization for Self-Supervised Learning, NeurIPS
            2025, arXiv 2510.23484.

    Args:
        x: embeddings, shape (B, D).
        sphere_weight: weight of the pull, at least 0. It is the ratio of lambda and gamma in [1]: 8e-4 / 0.2
            beside an invariance of weight 10, and 2e-5 / 3e-3 beside CLIP's loss of weight 1.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: ``sphere_weight`` is out of range, or ``x`` is not of shape (B, D).
    """
    check_features("x", x)
    check_between("sphere_weight", sphere_weight, 0)
    return t_reg_loss_of(x, spanning_tree(x.detach()), sphere_weight)


def t_reg_loss_of(x: Tensor, edges: Tensor, sphere_weight: float) -> Tensor:
    """Return the loss of :func:`t_reg_loss` from the edges of the tree, pairs of row numbers (2, B - 1)."""
    length = torch.linalg.vector_norm(x[edges[0]] - x[edges[1]], dim=1).sum() / len(x)
    sphere = ((torch.linalg.vector_norm(x, dim=1) - 1) ** 2).mean()
    return sphere_weight * sphere - length


@torch.library.custom_op("solo_dimreg::spanning_tree", mutates_args=())
def spanning_tree(x: Tensor) -> Tensor:
    """Return the edges of the Euclidean minimum spanning tree as pairs of row numbers, shape (2, B - 1).

    It is a custom operator, which ``torch.compile`` does not trace. Rows that are not finite are joined
    somewhere, so that a loss from the edges is not finite either.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import minimum_spanning_tree

    # In float64, in which a product of float32 features resolves even features that are nearly equal.
    points = x.cpu().double().nan_to_num(posinf=0, neginf=0)
    points = points - points.mean(dim=0)
    squares = (points**2).sum(dim=1)
    weights = squares[:, None] + squares - 2 * points @ points.T  # squared distances make the same tree
    row, column = torch.triu_indices(len(x), len(x), offset=1)
    # SciPy takes a weight of 0 for no edge, and in a dense matrix also one below 1e-8.
    edges = weights[row, column].clamp_min(torch.finfo(weights.dtype).tiny).numpy()
    graph = coo_matrix((edges, (row.numpy(), column.numpy())), shape=weights.shape)
    tree = minimum_spanning_tree(graph).tocoo()
    return torch.stack([torch.from_numpy(ends).long() for ends in (tree.row, tree.col)]).to(x.device)


@spanning_tree.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(2, len(x) - 1, dtype=torch.long)
