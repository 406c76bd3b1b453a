"""DirectCLR's two toy experiments on why contrastive learning collapses dimensions, in seconds on a CPU.

They use normally distributed points, linear layers, noise as augmentation, InfoNCE and plain SGD [1, sec. 4
and 5].

References:
    [1] Jing et al., Understanding Dimensional Collapse in Contrastive Self-Supervised Learning, ICLR 2022.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from solo_dimreg.functional import singular_spectrum
from solo_dimreg.functional._checks import check_int
from solo_dimreg.functional.directclr import inner_product_info_nce_loss

POINTS, WIDTH, BATCH, STEPS = 10_000, 16, 128, 10_000
TEMPERATURE = 0.1
WEAK, STRONG = 0.01, 1.5  # standard deviations of the noise
NOISY_AXES = 8
FRESH_POINTS = 1_000
RECORDS = 100  # during one training, besides the record before it

Matrix = list[list[float]]


@dataclass
class StrongAugmentation:
    """The record of training one layer with noise on half of the input axes.

    Attributes:
        noise: The standard deviation of the noise.
        steps: The steps after which the spectra were recorded.
        spectra: The singular values of the covariance of the outputs, descending, for each of ``steps``.
    """

    noise: float
    steps: list[int] = field(default_factory=list)
    spectra: Matrix = field(default_factory=list)

    @property
    def gap(self) -> float:
        """Return the mean of the upper half of the final log singular values minus that of the lower half."""
        logs = torch.tensor(self.spectra[-1]).log()
        return (logs[: WIDTH // 2].mean() - logs[WIDTH // 2 :].mean()).item()


@dataclass
class ImplicitRegularization:
    """The record of training two layers.

    Attributes:
        steps: The steps after which the values were recorded.
        spectra: The singular values of the covariance of the outputs, descending, for each of ``steps``.
        layer1, layer2: The singular values of each layer, descending, for each of ``steps``.
        alignment_before, alignment_after: The results of :func:`alignment_matrix` before and after training.
    """

    steps: list[int] = field(default_factory=list)
    spectra: Matrix = field(default_factory=list)
    layer1: Matrix = field(default_factory=list)
    layer2: Matrix = field(default_factory=list)
    alignment_before: Matrix = field(default_factory=list)
    alignment_after: Matrix = field(default_factory=list)

    @property
    def leading(self) -> int:
        """Return the number of directions above a quarter of the largest singular value in both layers."""
        layers = (self.layer1[-1], self.layer2[-1])
        return min(sum(value > values[0] / 4 for value in values) for values in layers)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Set the seed of random numbers on the CPU inside, and restore the random state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def noisy_pairs(noise: Tensor) -> Iterator[Tensor]:
    """Yield batches of two noisy views of the same points without end, (2, BATCH, WIDTH).

    Args:
        noise: The standard deviation of the noise on each axis, (WIDTH,).
    """
    points = torch.randn(POINTS, WIDTH)
    batches = POINTS // BATCH
    while True:
        # A batch has no point twice, because the point would be its own negative.
        order = torch.randperm(POINTS)[: batches * BATCH]
        yield from points[order].view(batches, 1, BATCH, WIDTH) + noise * torch.randn(
            batches, 2, BATCH, WIDTH
        )


def train(network: nn.Module, learning_rate: float, noise: Tensor, steps: int) -> Iterator[int]:
    """Train with plain SGD, and yield each step to record, 0 and ``steps`` included.

    Raises:
        ConfigError: ``steps`` is below 1.
    """
    check_int("steps", steps, minimum=1)
    optimizer = torch.optim.SGD(network.parameters(), lr=learning_rate)
    yield 0
    for step, views in enumerate(itertools.islice(noisy_pairs(noise), steps), 1):
        z1, z2 = network(views)
        loss = inner_product_info_nce_loss(z1, z2, TEMPERATURE)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % max(1, steps // RECORDS) == 0 or step == steps:
            yield step


def strong_augmentation(noise: float, steps: int = STEPS, seed: int = 0) -> StrongAugmentation:
    """Train one linear layer with noise on the last 8 of 16 input axes [1, sec. 4].

    If the noise on an axis exceeds the spread of the data, the layer shrinks the data on that axis.
    ``noise`` is its standard deviation, and ``steps`` the number of batches.
    """
    result = StrongAugmentation(noise)
    with seeded(seed):
        # The released code has a bias, which grows along one output axis and removes the spread along it.
        layer = nn.Linear(WIDTH, WIDTH, bias=False)
        fresh = torch.randn(FRESH_POINTS, WIDTH)
        noise_of_axis = torch.zeros(WIDTH)
        noise_of_axis[-NOISY_AXES:] = noise
        for step in train(layer, 0.001, noise_of_axis, steps):
            result.steps.append(step)
            result.spectra.append(singular_spectrum(layer(fresh).detach()).tolist())
    return result


def implicit_regularization(steps: int = STEPS, seed: int = 0) -> ImplicitRegularization:
    """Train two linear layers without bias, with hardly any noise [1, sec. 5].

    The larger the singular values of a direction in both layers, the faster they grow. Small ones stay
    behind, although nothing in the data causes it. ``steps`` is the number of batches.
    """
    result = ImplicitRegularization()
    with seeded(seed):
        layer1, layer2 = _decaying_layer(), _decaying_layer()
        network = nn.Sequential(layer1, layer2)
        result.alignment_before = alignment_matrix(layer1.weight, layer2.weight).tolist()
        fresh = torch.randn(FRESH_POINTS, WIDTH)
        for step in train(network, 0.01, torch.full((WIDTH,), 0.001), steps):
            result.steps.append(step)
            result.spectra.append(singular_spectrum(network(fresh).detach()).tolist())
            for layer, values in ((layer1, result.layer1), (layer2, result.layer2)):
                values.append(torch.linalg.svdvals(layer.weight.detach()).tolist())
        result.alignment_after = alignment_matrix(layer1.weight, layer2.weight).tolist()
    return result


def _decaying_layer() -> nn.Linear:
    """Return a layer with singular values exp(-0.35 i) between random orthogonal matrices."""
    layer = nn.Linear(WIDTH, WIDTH, bias=False)
    left, right = (nn.init.orthogonal_(torch.empty(WIDTH, WIDTH)) for _ in range(2))
    layer.weight.data = left * torch.exp(-0.35 * torch.arange(WIDTH)) @ right
    return layer


@torch.no_grad()
def alignment_matrix(weight1: Tensor, weight2: Tensor) -> Tensor:
    """Return ``V2^T U1``, the second layer's input directions by the first layer's output directions.

    The layers are ``x -> W x`` with ``W = U S V^T``. The signs of singular vectors are arbitrary, and so are
    the signs of the rows and columns of the result.
    """
    left_of_1 = torch.linalg.svd(weight1.double())[0]
    right_of_2_transposed = torch.linalg.svd(weight2.double())[2]
    return right_of_2_transposed @ left_of_1


def principal_alignment(alignment: Matrix, leading: int) -> Matrix:
    """Return the alignment matrix with the principal vectors of both ``leading`` subspaces as bases.

    Its leading diagonal holds the cosines of the principal angles. They are all 1 if the second layer's
    leading input directions are the first layer's leading output directions. With the singular vectors
    themselves, the diagonal says little: the leading singular values end within a factor of about two of each
    other, and the second layer evens out their differences. The vectors therefore mix, or meet in reversed
    order.
    """
    turned = torch.tensor(alignment, dtype=torch.float64)
    left, _, right = torch.linalg.svd(turned[:leading, :leading])
    turned[:leading] = left.T @ turned[:leading]
    turned[:, :leading] = turned[:, :leading] @ right.T
    return turned.tolist()


def subspace_cosine(alignment: Matrix, leading: int) -> float:
    """Return the cosine of the largest angle between both layers' ``leading`` subspaces."""
    return principal_alignment(alignment, leading)[leading - 1][leading - 1]


def mean_diagonal(alignment: Matrix, leading: int) -> float:
    """Return the mean absolute diagonal of the alignment matrix over the ``leading`` directions."""
    return torch.tensor(alignment).diagonal()[:leading].abs().mean().item()
