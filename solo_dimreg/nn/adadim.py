"""AdaDim as a module."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from solo_dimreg.distributed import all_gather
from solo_dimreg.errors import ConfigError
from solo_dimreg.functional._checks import (
    check_between,
    check_choice,
    check_int,
    check_number,
    check_positive,
)
from solo_dimreg.functional._precision import full_precision
from solo_dimreg.functional.adadim import adadim_loss, check_vicreg_weights, ntxent_loss, vicreg_loss
from solo_dimreg.functional.information import check_order, matrix_entropies
from solo_dimreg.functional.spectrum import effective_rank
from solo_dimreg.nn._buffers import Float32Buffers
from solo_dimreg.nn._regularizer import WithOptions, as_views

# Functions that return alpha from the progress of the training, 0 to 1.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "linear": lambda progress: progress,
    "cosine": lambda progress: (1 - math.cos(math.pi * progress)) / 2,
}


@torch.library.custom_op("solo_dimreg::alternate_ranks", mutates_args=("calls",))
def _alternate_ranks(r: Tensor, z: Tensor, last: Tensor, calls: Tensor, every: int, gather: bool) -> Tensor:
    """Return :func:`_ranks` at each ``every``-th call and the ``last`` ranks otherwise; count the calls.

    The count is on the CPU, so that no device is waited for. This is a custom operator, since torch.compile
    would compile a branch on a number again at every step.
    """
    estimate = due(calls, every)
    calls += 1
    return _ranks(r, z, gather).to(last) if estimate else last.clone()


@_alternate_ranks.register_fake
def _(r: Tensor, z: Tensor, last: Tensor, calls: Tensor, every: int, gather: bool) -> Tensor:
    return torch.empty_like(last)


def due(calls: Tensor, every: int) -> bool:
    """Return whether the next call estimates the ranks."""
    return int(calls) % every == 0


def _ranks(r: Tensor, z: Tensor, gather: bool) -> Tensor:
    """Return the effective ranks of R and Z, (2,), each the mean over the matrices of a stack (n, B, D).

    With ``gather``, R holds the rows of this process alone.
    """
    if gather:
        r = torch.stack([all_gather(x) for x in r])
    return torch.stack([torch.stack([effective_rank(x) for x in stack]).mean() for stack in (r, z)])


class AdaDim(Float32Buffers, WithOptions):
    """A loss that first fills the dimensions and then spreads the samples, as the dimensions fill up [1].

    The loss is ``alpha * sample_weight * NT-Xent + (1 - alpha) * dimension_weight * VICReg + beta * I(R;Z)``,
    over all processes. R are the features and Z the embeddings. This is a reconstruction from the abstract,
    the findings and the reviews of [1], whose code and equations were not at hand, so every choice is an
    option.

    After each call, ``metrics`` holds these values, detached:

    - ``alpha`` and ``beta``;
    - ``H_R`` and ``H_Z``, the effective ranks of R and Z, by which [1] measures H(R) and H(Z), if alpha
      follows the rank;
    - ``matrix_entropy_R`` and ``matrix_entropy_Z``, and the ``I_RZ`` computed from them, unless gamma is 0;
    - ``loss_sample`` and ``loss_dimension``, without their weights, unless alpha is 0 or 1.

    The matrix entropy of features that are not centred and not negative hardly moves. They all share the
    direction of their mean, so their Gram matrix is close to one of rank 1 whatever else they do.

    In short trainings alpha falls, and with ``rank_against="start"`` it stays 0: the embeddings of a fresh
    network have nearly full rank, and the invariance first takes much of it away.

    References:
        [1] Kokilepersaud et al., AdaDim: Dimensionality Adaptation for SSL Representational Dynamics,
            arXiv 2505.12576, 2025.

    Args:
        alpha: "erank" follows the effective rank of the embeddings, averaged over the training steps;
            "linear" or "cosine" runs from 0 to 1 over the training; a number from 0 to 1 is fixed.
        rank_of: "view" takes the mean of the effective ranks of the views; "both" takes the effective rank of
            both views as one matrix. The second falls as the views become alike: two equal views have half
            the rank of two independent ones.
        rank_against: "attainable" divides the effective rank by the attainable one, min(B, d) for B rows;
            "start" counts from the effective rank at the start of the training (alpha 0) to the attainable
            one (alpha 1).
        ema: weight of the past in that average, in [0, 1). The average is a buffer and is not biased towards
            its start.
        rank_every: number of training steps from one estimate of the effective rank to the next, at least 1;
            [1] does not estimate it at every step either.
        gamma: weight of I(R;Z) in the loss. Above 0 it lowers I(R;Z), which makes a bottleneck; below 0 it
            raises it. The abstract of [1] says "gradual regularization of I(R;Z)", and one of its reviewers
            reads that as raising it. The sign is disputed, so you choose it.
        beta_schedule: "gradual" makes beta gamma times alpha, as in [1]; "constant" makes it gamma; "linear"
            runs from 0 to gamma over the training.
        order: order of the entropies, 1 or 2; 1 needs the eigenvalues of matrices as wide as the batch.
        sample_weight: weight of NT-Xent, at least 0.
        dimension_weight: weight of VICReg, at least 0.
        temperature: temperature of NT-Xent, above 0.
        sim: weight of the invariance in VICReg, at least 0.
        var: weight of the variance in VICReg, at least 0.
        cov: weight of the covariance in VICReg, at least 0.

    Raises:
        ValueError: an option is unknown or out of range.

    Example:
        >>> adadim = AdaDim()
        >>> loss = adadim(torch.randn(2, 32, 64).unbind(), torch.randn(2, 32, 16).unbind(), progress=0.1)
    """

    rank_sum: Tensor
    rank_weight: Tensor
    last_ranks: Tensor
    start_rank: Tensor

    def __init__(
        self,
        alpha: str | float = "erank",
        rank_of: str = "view",
        rank_against: str = "attainable",
        ema: float = 0.99,
        rank_every: int = 10,
        gamma: float = 0.01,
        beta_schedule: str = "gradual",
        order: int = 2,
        sample_weight: float = 1.0,
        dimension_weight: float = 1.0,
        temperature: float = 0.1,
        sim: float = 25.0,
        var: float = 25.0,
        cov: float = 1.0,
    ) -> None:
        super().__init__()
        if isinstance(alpha, str):
            check_choice("alpha", alpha, ("erank", *SCHEDULES))
        else:
            check_between("alpha", alpha, 0, 1)
        check_choice("rank_of", rank_of, ("view", "both"))
        check_choice("rank_against", rank_against, ("attainable", "start"))
        check_between("ema", ema, 0, 1)
        if ema == 1:
            raise ConfigError("ema must be below 1, got 1: the average would never move.")
        check_int("rank_every", rank_every, minimum=1)
        check_number("gamma", gamma)
        check_choice("beta_schedule", beta_schedule, ("gradual", "constant", "linear"))
        check_order(order)
        check_between("sample_weight", sample_weight, 0)
        check_between("dimension_weight", dimension_weight, 0)
        check_positive("temperature", temperature)
        check_vicreg_weights(sim, var, cov)
        self.alpha = alpha
        self.rank_of = rank_of
        self.rank_against = rank_against
        self.ema = ema
        self.rank_every = rank_every
        self.gamma = gamma
        self.beta_schedule = beta_schedule
        self.order = order
        self.sample_weight = sample_weight
        self.dimension_weight = dimension_weight
        self.temperature = temperature
        self.sim = sim
        self.var = var
        self.cov = cov
        self.metrics: dict[str, Tensor] = {}
        self.register_buffer("rank_sum", torch.zeros(()))
        self.register_buffer("rank_weight", torch.zeros(()))
        self.register_buffer("last_ranks", torch.full((2,), torch.nan))
        self.register_buffer("start_rank", torch.zeros(()))  # 0: not known yet
        self._calls = torch.zeros((), dtype=torch.long)

    @full_precision
    def forward(self, r_views: Sequence[Tensor], z_views: Sequence[Tensor], progress: float = 0.0) -> Tensor:
        """Compute the loss over all processes; in training mode, move the average of the effective rank.

        Args:
            r_views: features of the two views, each of shape (B, D).
            z_views: embeddings of the two views, each of shape (B, d).
            progress: the part of the training that is done, from 0 to 1.

        Returns:
            The loss, a scalar, the same on every process.

        Raises:
            ValueError: there are not two views, their shapes do not fit, or the progress is out of range.
        """
        check_between("progress", progress, 0, 1)
        r_views, z_views = _two("r_views", r_views), _two("z_views", z_views)
        z1, z2 = (all_gather(z) for z in z_views)
        sample = dimension = information = z1.new_zeros(())
        parts: dict[str, Tensor] = {}
        ranks: dict[str, Tensor] = {}
        # What a gamma of 0 or a fixed alpha does not need is neither gathered nor computed.
        gather = self.gamma == 0
        if self.gamma != 0 or self.alpha == "erank":
            r = torch.cat([view if gather else all_gather(view) for view in r_views])
            z = torch.cat([z1, z2])
        if self.gamma != 0:
            entropy_r, entropy_z, information = matrix_entropies(r, z, self.order)
            parts |= {"matrix_entropy_R": entropy_r, "matrix_entropy_Z": entropy_z, "I_RZ": information}
        if self.alpha != 0:
            sample = parts["loss_sample"] = ntxent_loss(z1, z2, self.temperature)
        if self.alpha != 1:
            dimension = parts["loss_dimension"] = vicreg_loss(z1, z2, self.sim, self.var, self.cov)
        if self.alpha == "erank":
            alpha, ranks = self._measure(r.detach(), z.detach(), gather)
        elif isinstance(self.alpha, str):
            alpha = z1.new_full((), SCHEDULES[self.alpha](progress))
        else:
            alpha = z1.new_full((), self.alpha)
        beta = self._beta(alpha, progress)
        self.metrics = {"alpha": alpha, "beta": beta, **ranks}
        self.metrics |= {name: part.detach() for name, part in parts.items()}
        return adadim_loss(
            self.sample_weight * sample, self.dimension_weight * dimension, information, alpha, beta
        )

    @torch.no_grad()
    def _measure(self, r: Tensor, z: Tensor, gather: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Return alpha and the effective ranks of R and Z, from which it follows."""
        views = 2 if self.rank_of == "view" else 1
        r, z = (x.view(views, -1, x.shape[1]) for x in (r, z))
        rank_r, rank_z = self._effective_ranks(r, z, gather)
        return self._alpha(rank_z, float(min(z.shape[1:]))), {"H_R": rank_r, "H_Z": rank_z}

    def _effective_ranks(self, r: Tensor, z: Tensor, gather: bool) -> Tensor:
        if not self.training:
            return _ranks(r, z, gather)
        ranks = _alternate_ranks(r, z, self.last_ranks, self._calls, self.rank_every, gather)
        # A step that overflowed gives NaN and will be skipped, so its rank must not be kept.
        self.last_ranks.copy_(torch.where(ranks.isfinite(), ranks, self.last_ranks))
        return ranks

    def _alpha(self, rank: Tensor, attainable: float) -> Tensor:
        filled = rank / attainable
        if self.rank_against == "start":
            start = torch.where(self.start_rank > 0, self.start_rank.to(rank), rank)
            if self.training:
                self.start_rank.copy_(torch.where(start.isfinite(), start, 0))
            filled = ((rank - start) / (attainable - start).clamp_min(1e-6)).clamp_min(0)
        if self.training:
            step = torch.where(filled.isfinite(), 1 - self.ema, 0).to(self.rank_sum)
            self.rank_sum.lerp_(torch.where(filled.isfinite(), filled, 0).to(self.rank_sum), step)
            self.rank_weight.lerp_(torch.ones_like(self.rank_weight), step)
        # After a first step that overflowed, alpha is 0 until the next estimate.
        return torch.where(self.rank_weight > 0, self.rank_sum / self.rank_weight, filled.nan_to_num(0))

    def get_extra_state(self) -> Tensor:
        """Return the number of training steps; every ``rank_every``-th one estimates the effective rank."""
        return self._calls.clone()

    def set_extra_state(self, state: Tensor) -> None:
        """Continue counting from the saved number of training steps."""
        self._calls.copy_(state)

    def _beta(self, alpha: Tensor, progress: float) -> Tensor:
        if self.beta_schedule == "gradual":
            return self.gamma * alpha
        return torch.full_like(alpha, self.gamma * (progress if self.beta_schedule == "linear" else 1))


def _two(name: str, views: Sequence[Tensor]) -> list[Tensor]:
    listed = as_views(name, views)
    if len(listed) != 2:
        raise ValueError(f"{name} must hold two tensors of shape (B, D), got {len(listed)}.")
    return listed
