"""Linear Barlow Twins from a small initialization learns one dimension after another, at known times.

References:
    [1] Simon et al., On the Stepwise Nature of Self-Supervised Learning, ICML 2023.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

INPUTS, OUTPUTS, POINTS = 16, 8, 2_000
DECAY, NOISE, INITIAL = 0.8, 0.1, 1e-4
STEP = 0.005  # of the gradient descent, in units of time of the gradient flow
RECORDED = 10  # every which step is recorded


@dataclass
class StepwiseLearning:
    """The record of one training.

    Attributes:
        eigenvalues: The eigenvalues of the embeddings' cross-correlation at the ``times``, descending.
        predicted, measured: For each dimension, the time at which its eigenvalue passes one half.
    """

    times: list[float] = field(default_factory=list)
    eigenvalues: list[list[float]] = field(default_factory=list)
    predicted: list[float] = field(default_factory=list)
    measured: list[float] = field(default_factory=list)

    @property
    def error(self) -> float:
        """Return the largest relative difference of a measured time from the predicted one."""
        pairs = zip(self.measured, self.predicted, strict=True)
        return max(abs(measured / predicted - 1) for measured, predicted in pairs)


def rise_times(correlation: Tensor, weight: Tensor) -> Tensor:
    """Compute when the gradient flow learns each dimension, if the initial weights are small.

    With ``dW/dt = -grad ||W G W^T - I||^2``, the singular value ``s`` of a mode with eigenvalue ``g`` of the
    correlation ``G`` follows ``ds/dt = 4 g s (1 - g s^2)`` [1]. It starts at what the earlier modes leave of
    the mode's column of the weights: the diagonal of a QR decomposition.

    Args:
        correlation: ``G``, the symmetric cross-correlation of two views (inputs, inputs).
        weight: The initial weights (outputs, inputs).

    Returns:
        The times at which ``g s^2`` is one half, (outputs,).
    """
    values, modes = torch.linalg.eigh(correlation)
    count = len(weight)
    values, modes = values.flip(0)[:count], modes.flip(1)[:, :count]
    start = torch.linalg.qr(weight @ modes)[1].diagonal().square()
    return (1 / (values * start) - 1).log() / (8 * values)


def stepwise_learning(seed: int = 0, initial: float = INITIAL) -> StepwiseLearning:
    """Train one linear layer on two noisy views of Gaussian points with the linear Barlow Twins loss [1].

    The variances of the input axes fall by a constant factor. The gradient descent on all points has a step
    so small that it follows the gradient flow within a percent.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    turned = torch.linalg.qr(normal(INPUTS, INPUTS))[0]
    points = normal(POINTS, INPUTS) * DECAY ** (torch.arange(INPUTS) / 2) @ turned
    first, second = (points + NOISE * normal(POINTS, INPUTS) for _ in range(2))
    correlation = (first.T @ second + second.T @ first) / (2 * POINTS)
    weight = (initial * normal(OUTPUTS, INPUTS)).requires_grad_()
    predicted = rise_times(correlation, weight.detach())
    result = StepwiseLearning(predicted=predicted.tolist(), measured=[0.0] * OUTPUTS)
    before = torch.zeros(OUTPUTS, dtype=torch.float64)
    for step in range(int(1.2 * float(predicted.max()) / STEP)):
        embedded = (first @ weight.T).T @ (second @ weight.T) / POINTS
        embedded = (embedded + embedded.T) / 2
        loss = (embedded - torch.eye(OUTPUTS, dtype=torch.float64)).square().sum()
        (slope,) = torch.autograd.grad(loss, weight)
        with torch.no_grad():
            weight -= STEP * slope
        values = torch.linalg.eigvalsh(embedded.detach()).flip(0)
        for dimension in ((before < 0.5) & (values >= 0.5)).nonzero().flatten().tolist():
            part = float((0.5 - before[dimension]) / (values[dimension] - before[dimension]))
            result.measured[dimension] = STEP * (step - 1 + part)
        if step % RECORDED == 0:
            result.times.append(STEP * step)
            result.eigenvalues.append(values.tolist())
        before = values
    return result
