"""The structure of dense representations, such as the patch tokens of a ViT or the cells of a feature map."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from solo_dimreg.functional._precision import full_precision
from solo_dimreg.functional.directclr import normalize_rows
from solo_dimreg.functional.spectrum import effective_rank, singular_values

# Clusters of the tokens of one image, of the tokens of a group of images, and the images of a group.
LOCAL_CLUSTERS, GLOBAL_CLUSTERS, GROUP = 3, 24, 8
ITERATIONS, TOLERANCE = 20, 1e-4


class DenseStructure(NamedTuple):
    """The terms of the dense representation structure estimator, each a scalar.

    Attributes:
        distance: The mean distance of a token to the nearest centre of another cluster, among 8 images.
        radius_image, radius_group: The mean radius of the clusters of one image, and of those of 8 images.
        dimension: The effective rank of the tokens at one place over the images, over the attainable one.
        influence: How much each group of 8 images moves the terms and the estimate, (G, 5): the derivative in
            its weight, and for the dimension the jackknife, in which it is left out.
    """

    distance: Tensor
    radius_image: Tensor
    radius_group: Tensor
    dimension: Tensor
    influence: Tensor

    @property
    def estimate(self) -> Tensor:
        """Return the estimate: distance minus mean radius plus dimension; higher is better."""
        return _estimate(*self[:4])


def _estimate(distance: Tensor, radius_image: Tensor, radius_group: Tensor, dimension: Tensor) -> Tensor:
    return distance - (radius_image + radius_group) / 2 + dimension


@full_precision
@torch.no_grad()
def dense_structure(x: Tensor) -> DenseStructure:
    """Compute the terms of the dense representation structure estimator (DSE) [1, sec. 4].

    [1] finds that RankMe, LiDAR and alpha-ReQ go down where the accuracy on dense tasks goes up, and that
    this estimate goes up with it. k-means gives the clusters, of tokens of length 1. Distances and
    radii are in units of the mean distance of a token to the mean of all. A radius is the sum of the singular
    values of the n centred tokens (n, D) of a cluster, over the root of max(n - 1, D). The weight of the
    dimension is 1, as in the authors' released code; [1] sets it by the standard deviations of the two terms
    over several checkpoints.

    References:
        [1] Dai et al., Exploring Structural Degradation in Dense Representations for Self-supervised
            Learning, NeurIPS 2025.

    Args:
        x: tokens, shape (B, N, D); the dimension depends on B, so compare equal numbers of images.

    Raises:
        ValueError: ``x`` is not of shape (B, N, D), or has fewer than two images or tokens.
    """
    if x.dim() != 3 or not x.is_floating_point() or min(x.shape[:2]) < 2 or not x.shape[2]:
        raise ValueError(f"x must be floating-point tokens (B, N, D) with B, N >= 2, got {tuple(x.shape)}.")
    x = normalize_rows(x.flatten(0, 1)).view(x.shape)
    lengths = (x - x.mean(dim=(0, 1))).norm(dim=-1).mean(dim=1)
    unit = lengths.mean().clamp_min(torch.finfo(x.dtype).tiny)
    generator = torch.Generator().manual_seed(0)
    local = torch.stack(
        [torch.stack(_radii(image, _k_means(image, LOCAL_CLUSTERS, generator)[1])).mean() for image in x]
    )
    distances, shared = [], []
    for images in x.split(GROUP):
        tokens = images.flatten(0, 1)
        centres, own = _k_means(tokens, GLOBAL_CLUSTERS, generator)
        shared.append(torch.stack(_radii(tokens, own)))
        nearest = torch.cdist(tokens, centres).scatter(1, own[:, None], torch.inf).amin(dim=1)
        distances.append(torch.where(nearest.isfinite(), nearest, 0).mean())  # there may be one cluster only
    order = torch.rand(x.shape[:2], generator=generator).argsort(dim=1).to(x.device)
    places = x.gather(1, order[..., None].expand_as(x)).transpose(0, 1)
    ranks = torch.stack([effective_rank(place) for place in places])
    sizes = torch.stack([torch.stack(distances).mean(), local.mean(), torch.cat(shared).mean()]) / unit
    each = [torch.stack(distances), _of_groups(local), torch.stack([radii.mean() for radii in shared])]
    moved = (torch.stack(each, 1) - sizes * _of_groups(lengths)[:, None]) / unit
    of_terms = (*moved.T, _left_out(places).to(moved))
    influence = torch.stack([*of_terms, _estimate(*of_terms)], dim=1)
    distance, image, group = sizes
    return DenseStructure(distance, image, group, ranks.mean() / min(x.shape[0], x.shape[2]), influence)


def dse(x: Tensor) -> Tensor:
    """Return the estimate of :func:`dense_structure` for tokens (B, N, D), a scalar."""
    return dense_structure(x).estimate


def _of_groups(values: Tensor) -> Tensor:
    """Return the mean of the values of each group of images, (G,)."""
    return torch.stack([group.mean() for group in values.split(GROUP)])


def _left_out(places: Tensor) -> Tensor:
    """Return how much each group of images moves the dimension of places (N, B, D), by leaving it out.

    It is NaN if there is one group only.
    """
    gram, own = (places @ places.mT).double(), torch.arange(places.shape[1], device=places.device) // GROUP
    left = []
    for group in own.unique():
        kept = (own != group).nonzero()[:, 0]
        roots = torch.linalg.eigvalsh(gram[:, kept][:, :, kept]).clamp_min(0).sqrt()
        shares = roots / roots.sum(dim=1, keepdim=True)
        left.append(torch.special.entr(shares).sum(dim=1).exp().mean() / min(len(kept), places.shape[2]))
    return (torch.stack(left).mean() - torch.stack(left)) * (len(left) - 1)


def _radii(tokens: Tensor, own: Tensor) -> list[Tensor]:
    """Return the radius of each cluster of more than one token; 1 if there is none."""
    members = [tokens[own == each] for each in own.unique()]
    several = [each for each in members if len(each) > 1]
    return [
        singular_values(each - each.mean(dim=0)).sum() / math.sqrt(max(len(each) - 1, each.shape[1]))
        for each in several
    ] or [tokens.new_ones(())]


def _k_means(x: Tensor, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the centres (k, D) and the cluster of each row of x (n, D), by Lloyd's algorithm.

    The first centres are drawn one after the other with probabilities in proportion to the distance to the
    nearest centre so far, as in the released code. If no row is left for a centre, there are fewer centres.
    """
    centres = x[torch.randint(len(x), (1,), generator=generator)]
    for _ in range(k - 1):
        far = torch.cdist(x, centres).amin(dim=1).cpu()
        if not far.any():
            break
        centres = torch.cat([centres, x[torch.multinomial(far, 1, generator=generator)]])
    own = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    for _ in range(ITERATIONS):
        own = torch.cdist(x, centres).argmin(dim=1)
        counts = own.bincount(minlength=len(centres))[:, None]
        sums = torch.zeros_like(centres).index_add_(0, own, x)
        moved = torch.where(counts > 0, sums / counts.clamp_min(1), centres)
        shift = (moved - centres).norm()
        centres = moved
        if shift < TOLERANCE:
            break
    return centres, own
