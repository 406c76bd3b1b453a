"""AdaDim as a module."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from solo_dimreg.distributed import all_gather
from solo_dimreg.errors import ConfigError
from solo_dimreg.functional._checks import check_between, check_choice, check_int, check_positive
from solo_dimreg.functional._precision import full_precision
from solo_dimreg.functional.adadim import adadim_loss, check_vicreg_weights, ntxent_loss, vicreg_loss
from solo_dimreg.functional.information import check_order, matrix_entropies
from solo_dimreg.functional.spectrum import effective_rank
from solo_dimreg.nn._buffers import Float32Buffers
from solo_dimreg.nn._views import as_views

# Progress of the training, 0 to 1, to alpha.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "linear": lambda progress: progress,
    "cosine": lambda progress: (1 - math.cos(math.pi * progress)) / 2,
}
BETA_SCHEDULES = ("gradual", "constant", "linear")


@torch.library.custom_op("solo_dimreg::rank_in_turn", mutates_args=("calls",))
def _rank_in_turn(z: Tensor, last: Tensor, calls: Tensor, every: int) -> Tensor:
    """The effective rank of z at each ``every``-th call, and the last one in between; counts the calls.

    The count is kept on the CPU, so that no device is waited for, and an operator for torch.compile, which
    would compile a branch on a number anew with every step.
    """
    due = int(calls) % every == 0
    calls += 1
    return effective_rank(z).to(last) if due else last.clone()


@_rank_in_turn.register_fake
def _(z: Tensor, last: Tensor, calls: Tensor, every: int) -> Tensor:
    return torch.empty_like(last)


class AdaDim(Float32Buffers):
    """Moves the weight from filling the dimensions to spreading the samples as the embedding fills up [1].

    ``alpha * sample_weight * NT-Xent + (1 - alpha) * dimension_weight * VICReg + beta_t * I(R;Z)``, over all
    processes. A reconstruction from the abstract, the findings and the reviews of [1], whose code and
    equations were not at hand: every choice is an option.

    After each call, ``metrics`` holds, detached: ``alpha``, ``beta``, ``erank`` (effective rank of Z), the
    matrix-based entropies ``H_R`` and ``H_Z``, ``I_RZ``, and ``loss_sample`` and ``loss_dimension`` without
    their weights.

    References:
        [1] Kokilepersaud et al., AdaDim: Dimensionality Adaptation for SSL Representational Dynamics,
            arXiv 2505.12576, 2025.

    Args:
        alpha: "erank", the effective rank of the embeddings over the largest that it could be, averaged over
            the training steps; "linear" or "cosine", from 0 to 1 over the training; or a fixed number from 0
            to 1.
        ema: weight of the past in that average, in [0, 1); the average is a buffer, without bias to its
            start.
        rank_every: number of training steps from one estimate of the effective rank to the next, at least 1;
            [1] takes it now and then, too.
        beta: weight of I(R;Z), at least 0.
        beta_schedule: "gradual", beta times alpha; "constant"; or "linear", from 0 to beta over the training.
        order: order of the entropies, 1 or 2; 1 takes the eigenvalues of matrices as wide as the batch.
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
    last_rank: Tensor

    def __init__(
        self,
        alpha: str | float = "erank",
        ema: float = 0.99,
        rank_every: int = 10,
        beta: float = 0.01,
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
        check_between("ema", ema, 0, 1)
        if ema == 1:
            raise ConfigError("ema must be below 1, got 1: the average would never move.")
        check_int("rank_every", rank_every, minimum=1)
        check_between("beta", beta, 0)
        check_choice("beta_schedule", beta_schedule, BETA_SCHEDULES)
        check_order(order)
        check_between("sample_weight", sample_weight, 0)
        check_between("dimension_weight", dimension_weight, 0)
        check_positive("temperature", temperature)
        check_vicreg_weights(sim, var, cov)
        self.alpha = alpha
        self.ema = ema
        self.rank_every = rank_every
        self.beta = beta
        self.beta_schedule = beta_schedule
        self.order = order
        self.sample_weight = sample_weight
        self.dimension_weight = dimension_weight
        self.temperature = temperature
        self.vicreg_weights = {"sim": sim, "var": var, "cov": cov}
        self.metrics: dict[str, Tensor] = {}
        self.register_buffer("rank_sum", torch.zeros(()))
        self.register_buffer("rank_weight", torch.zeros(()))
        self.register_buffer("last_rank", torch.ones(()))
        self._calls = torch.zeros((), dtype=torch.long)

    @full_precision
    def forward(self, r_views: Sequence[Tensor], z_views: Sequence[Tensor], progress: float = 0.0) -> Tensor:
        """The loss over all processes; in training mode the average of the effective rank moves one step.

        Args:
            r_views: representations of the two views, each of shape (B, D).
            z_views: embeddings of the two views, each of shape (B, d).
            progress: the part of the training that is done, from 0 to 1.

        Returns:
            The loss, a scalar, the same on every process.

        Raises:
            ValueError: there are not two views, their shapes do not fit, or the progress is out of range.
        """
        check_between("progress", progress, 0, 1)
        r1, r2 = (all_gather(r) for r in _two("r_views", r_views))
        z1, z2 = (all_gather(z) for z in _two("z_views", z_views))
        r, z = torch.cat([r1, r2]), torch.cat([z1, z2])

        sample = ntxent_loss(z1, z2, self.temperature)
        dimension = vicreg_loss(z1, z2, **self.vicreg_weights)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.beta > 0):
            h_r, h_z, information = matrix_entropies(r, z, self.order)
        erank = self._effective_rank(z.detach())
        alpha = self._alpha(erank / min(z.shape), progress)
        beta = self._beta(alpha, progress)
        self.metrics = {
            "alpha": alpha,
            "beta": beta,
            "erank": erank,
            "H_R": h_r.detach(),
            "H_Z": h_z.detach(),
            "I_RZ": information.detach(),
            "loss_sample": sample.detach(),
            "loss_dimension": dimension.detach(),
        }
        return adadim_loss(
            self.sample_weight * sample, self.dimension_weight * dimension, information, alpha, beta
        )

    @torch.no_grad()
    def _effective_rank(self, z: Tensor) -> Tensor:
        if not self.training:
            return effective_rank(z)
        rank = _rank_in_turn(z, self.last_rank, self._calls, self.rank_every)
        # A step that overflowed is NaN, and will be skipped: it must not stay for good.
        self.last_rank.copy_(torch.where(rank.isfinite(), rank, self.last_rank))
        return rank

    @torch.no_grad()
    def _alpha(self, fill: Tensor, progress: float) -> Tensor:
        if not isinstance(self.alpha, str):
            return torch.full_like(fill, self.alpha)
        if self.alpha in SCHEDULES:
            return torch.full_like(fill, SCHEDULES[self.alpha](progress))
        if self.training:
            step = torch.where(fill.isfinite(), 1 - self.ema, 0).to(self.rank_sum)
            self.rank_sum.lerp_(torch.where(fill.isfinite(), fill, 0).to(self.rank_sum), step)
            self.rank_weight.lerp_(torch.ones_like(self.rank_weight), step)
        return torch.where(self.rank_weight > 0, self.rank_sum / self.rank_weight, fill)

    def get_extra_state(self) -> Tensor:
        """The number of training steps, of which every ``rank_every``-th estimates the effective rank."""
        return self._calls.clone()

    def set_extra_state(self, state: Tensor) -> None:
        """Goes on counting from there."""
        self._calls.copy_(state)

    def _beta(self, alpha: Tensor, progress: float) -> Tensor:
        if self.beta_schedule == "gradual":
            return self.beta * alpha
        return torch.full_like(alpha, self.beta * (progress if self.beta_schedule == "linear" else 1))

    def extra_repr(self) -> str:
        """The options, for printing."""
        return (
            f"alpha={self.alpha!r}, ema={self.ema}, rank_every={self.rank_every}, beta={self.beta}, "
            f"beta_schedule={self.beta_schedule!r}, order={self.order}, sample_weight={self.sample_weight}, "
            f"dimension_weight={self.dimension_weight}, temperature={self.temperature}, "
            f"vicreg_weights={self.vicreg_weights}"
        )


def _two(name: str, views: Sequence[Tensor]) -> list[Tensor]:
    listed = as_views(name, views)
    if len(listed) != 2:
        raise ValueError(f"{name} must hold two tensors of shape (B, D), got {len(listed)}.")
    return listed
