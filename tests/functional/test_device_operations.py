"""The operations of a device other than a CPU, run on the CPU: how many there are, and that none waits."""

import pytest
from numeric import normal

from solo_dimreg import KoLeo, LDReg
from solo_dimreg.functional import local_intrinsic_dimensionality, neighbours
from solo_dimreg.studies.launches import Counter


def operations(loss, x):
    """Return how many operations a forward and a backward pass take; none of them waits for a result."""
    x = x.clone().requires_grad_()
    with Counter() as forward:
        value = loss(x)
    with Counter() as backward:
        value.backward()
    assert forward.waits == backward.waits == 0
    return len(forward.names), len(backward.names)


def lid_of_batch(k):
    return lambda x: local_intrinsic_dimensionality(x, k=k).log().sum()


# Rows and features are divided by ``part``, and the bytes held at a time by its square, so that there are
# as many chunks.
@pytest.mark.parametrize("loss", [lambda k: LDReg(k=k), lid_of_batch])
@pytest.mark.parametrize(
    ("b", "d", "k", "part", "forward", "backward"),
    [
        (512, 512, 64, 4, 60, 40),
        (2048, 2048, 64, 16, 60, 40),
        (4096, 2048, 64, 16, 60, 40),
        (16384, 2048, 128, 64, 100, 100),
    ],
)
def test_the_search_takes_few_operations(loss, b, d, k, part, forward, backward, monkeypatch):
    monkeypatch.setattr(neighbours, "SHAPED_FOR_CUDA", True)
    monkeypatch.setattr(neighbours, "MAX_BYTES", neighbours.MAX_BYTES // part**2)
    found = operations(loss(k), normal(b // part, d // part).float())
    assert found[0] <= forward and found[1] <= backward, found


def test_koleo_takes_few_operations(monkeypatch):
    monkeypatch.setattr(neighbours, "SHAPED_FOR_CUDA", True)
    found = operations(KoLeo(), normal(64, 8).float())
    assert found[0] <= 60 and found[1] <= 40, found
