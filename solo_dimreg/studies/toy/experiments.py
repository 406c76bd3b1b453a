"""DirectCLR's two toy experiments: why contrastive learning collapses dimensions, in seconds on a CPU.

Normally distributed points, linear layers, noise as augmentation, InfoNCE and plain SGD [1, sec. 4 and 5].

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
WEAK, STRONG = 0.01, 1.5  # noise
NOISY_AXES = 8
FRESH_POINTS = 1_000
RECORDS = 100  # during one training, besides the one before it

Matrix = list[list[float]]


@dataclass
class StrongAugmentation:
    """What training one layer under noise on half of the input axes did.

    Attributes:
        noise: standard deviation of the noise.
        steps: the steps after which the rest was recorded.
        spectra: singular values of the covariance of the outputs, descending, for each of ``steps``.
    """

    noise: float
    steps: list[int] = field(default_factory=list)
    spectra: Matrix = field(default_factory=list)

    @property
    def gap(self) -> float:
        """How far the mean of the lower half of the final log singular values is below that of the upper."""
        logs = torch.tensor(self.spectra[-1]).log()
        return (logs[: WIDTH // 2].mean() - logs[WIDTH // 2 :].mean()).item()


@dataclass
class ImplicitRegularization:
    """What training two layers did.

    The alignment matrix is ``V2^T U1``: row i, column j is the inner product of the i-th right singular
    vector of the second layer and the j-th left singular vector of the first.

    Attributes:
        steps: the steps after which the rest was recorded.
        spectra: singular values of the covariance of the outputs, descending, for each of ``steps``.
        layer1: singular values of the first layer, descending, for each of ``steps``.
        layer2: singular values of the second layer, descending, for each of ``steps``.
        alignment_before: the alignment matrix before training.
        alignment_after: the alignment matrix after training.
    """

    steps: list[int] = field(default_factory=list)
    spectra: Matrix = field(default_factory=list)
    layer1: Matrix = field(default_factory=list)
    layer2: Matrix = field(default_factory=list)
    alignment_before: Matrix = field(default_factory=list)
    alignment_after: Matrix = field(default_factory=list)

    @property
    def leading(self) -> int:
        """How many directions have grown: singular values above a quarter of the largest, in both layers."""
        layers = (self.layer1[-1], self.layer2[-1])
        return min(sum(value > values[0] / 4 for value in values) for values in layers)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws on the CPU depend on ``seed`` inside, and are as if nothing had been drawn after it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def noisy_pairs(noise: Tensor) -> Iterator[Tensor]:
    """Endless batches of two noisy views of the same points, of shape (2, BATCH, WIDTH).

    Args:
        noise: standard deviation of the noise on each axis, shape (WIDTH,).
    """
    points = torch.randn(POINTS, WIDTH)
    batches = POINTS // BATCH
    while True:
        # No point is twice in a batch: it would be its own negative.
        order = torch.randperm(POINTS)[: batches * BATCH]
        yield from points[order].view(batches, 1, BATCH, WIDTH) + noise * torch.randn(
            batches, 2, BATCH, WIDTH
        )


def train(network: nn.Module, learning_rate: float, noise: Tensor, steps: int) -> Iterator[int]:
    """Trains by plain SGD; yields the step whenever it is time to record, 0 and ``steps`` included."""
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


@torch.no_grad()
def output_spectrum(network: nn.Module, points: Tensor) -> list[float]:
    """Singular values of the covariance of the network's outputs, descending."""
    return singular_spectrum(network(points)).tolist()


def strong_augmentation(noise: float, steps: int = STEPS, seed: int = 0) -> StrongAugmentation:
    """One linear layer, noise on the last 8 of 16 input axes [1, sec. 4].

    Noise that exceeds the spread of the data on an axis makes the layer shrink what it sees of that axis.

    Args:
        noise: standard deviation of the noise.
        steps: number of batches to train on, at least 1.
        seed: seed of all draws.

    Raises:
        ConfigError: ``steps`` is below 1.
    """
    check_int("steps", steps, minimum=1)
    result = StrongAugmentation(noise)
    with seeded(seed):
        # A bias, which the released code has, grows along one output axis and empties it of the points.
        layer = nn.Linear(WIDTH, WIDTH, bias=False)
        fresh = torch.randn(FRESH_POINTS, WIDTH)
        noise_of_axis = torch.zeros(WIDTH)
        noise_of_axis[-NOISY_AXES:] = noise
        for step in train(layer, 0.001, noise_of_axis, steps):
            result.steps.append(step)
            result.spectra.append(output_spectrum(layer, fresh))
    return result


def implicit_regularization(steps: int = STEPS, seed: int = 0) -> ImplicitRegularization:
    """Two linear layers without bias, hardly any noise [1, sec. 5].

    The larger the singular values of a direction in both layers, the faster they grow: small ones stay
    behind, although nothing in the data asks for it.

    Args:
        steps: number of batches to train on, at least 1.
        seed: seed of all draws.

    Raises:
        ConfigError: ``steps`` is below 1.
    """
    check_int("steps", steps, minimum=1)
    result = ImplicitRegularization()
    with seeded(seed):
        layer1, layer2 = _decaying_layer(), _decaying_layer()
        network = nn.Sequential(layer1, layer2)
        result.alignment_before = alignment_matrix(layer1.weight, layer2.weight).tolist()
        fresh = torch.randn(FRESH_POINTS, WIDTH)
        for step in train(network, 0.01, torch.full((WIDTH,), 0.001), steps):
            result.steps.append(step)
            result.spectra.append(output_spectrum(network, fresh))
            for layer, values in ((layer1, result.layer1), (layer2, result.layer2)):
                values.append(torch.linalg.svdvals(layer.weight.detach()).tolist())
        result.alignment_after = alignment_matrix(layer1.weight, layer2.weight).tolist()
    return result


def _decaying_layer() -> nn.Linear:
    """A layer with singular values exp(-0.35 i) between random orthogonal matrices."""
    layer = nn.Linear(WIDTH, WIDTH, bias=False)
    left, right = (nn.init.orthogonal_(torch.empty(WIDTH, WIDTH)) for _ in range(2))
    layer.weight.data = left * torch.exp(-0.35 * torch.arange(WIDTH)) @ right
    return layer


@torch.no_grad()
def alignment_matrix(weight1: Tensor, weight2: Tensor) -> Tensor:
    """``V2^T U1``, what the second layer takes in against what the first, applied before it, puts out.

    The layers are ``x -> W x`` with ``W = U S V^T``. The signs of singular vectors, and so of the rows and
    columns of the result, are arbitrary.
    """
    left_of_1 = torch.linalg.svd(weight1.double())[0]
    right_of_2_transposed = torch.linalg.svd(weight2.double())[2]
    return right_of_2_transposed @ left_of_1


def principal_alignment(alignment: Matrix, leading: int) -> Matrix:
    """The alignment matrix with the principal vectors of both layers' ``leading`` subspaces as their bases.

    Its leading diagonal holds the cosines of the principal angles: all 1 where the second layer takes in
    exactly the directions that the first puts out most. With the singular vectors themselves the diagonal
    says little, for the leading singular values end within a factor of about two of each other, and the
    second layer evens out what differs: the vectors mix, or meet in reversed order.
    """
    turned = torch.tensor(alignment, dtype=torch.float64)
    left, _, right = torch.linalg.svd(turned[:leading, :leading])
    turned[:leading] = left.T @ turned[:leading]
    turned[:, :leading] = turned[:, :leading] @ right.T
    return turned.tolist()


def subspace_cosine(alignment: Matrix, leading: int) -> float:
    """Cosine of the largest angle between the spans of both layers' ``leading`` singular vectors."""
    return principal_alignment(alignment, leading)[leading - 1][leading - 1]


def mean_diagonal(alignment: Matrix, leading: int) -> float:
    """Mean absolute diagonal of the alignment matrix over the ``leading`` directions."""
    return torch.tensor(alignment).diagonal()[:leading].abs().mean().item()
