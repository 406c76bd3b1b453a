"""LDReg's loss against its formula."""

import numpy as np
import pytest
import torch
from numeric import normal

from solo_dimreg.functional import ldreg_loss, ldreg_penalty, local_intrinsic_dimensionality


def test_penalties_are_those_of_the_paper():
    lids = np.array([0.5, 2.0, 8.0])
    logs = np.log(lids)
    assert ldreg_penalty(torch.tensor(lids), "l1").item() == pytest.approx(-logs.mean())
    assert ldreg_penalty(torch.tensor(lids), "l2").item() == pytest.approx(-np.sqrt(np.mean(logs**2)))


def test_l1_raises_a_lid_below_one_too():
    lids = torch.tensor([0.5, 4.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(ldreg_penalty(lids, "l1"), lids)
    assert (gradient < 0).all()


def test_l2_has_a_gradient_where_every_lid_is_one():
    lids = torch.ones(5, requires_grad=True)
    (gradient,) = torch.autograd.grad(ldreg_penalty(lids, "l2"), lids)
    assert (gradient == 0).all()


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("estimator", ["mom", "mle"])
def test_the_batch_as_reference_is_detached(estimator, norm):
    x = normal(20, 5).requires_grad_()
    loss = ldreg_loss(x, k=6, estimator=estimator, norm=norm)
    lids = local_intrinsic_dimensionality(x, x.detach(), 6, estimator, self_indices=torch.arange(20))
    expected = ldreg_penalty(lids, norm)
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(value, x)[0] for value in (loss, expected)))


def test_a_reference_gets_no_gradient():
    x, reference = normal(8, 5).requires_grad_(), normal(30, 5, seed=1).requires_grad_()
    ldreg_loss(x, reference, k=6).backward()
    assert x.grad is not None and reference.grad is None


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_gradient(norm):
    x, reference = normal(6, 4).requires_grad_(), normal(12, 4, seed=1)
    assert torch.autograd.gradcheck(lambda a: ldreg_loss(a, reference, k=5, norm=norm), (x,))


def test_minimizing_it_raises_the_lid():
    # 64 points near a line in the plane: the loss moves them off it.
    x = normal(64, 2) * torch.tensor([1.0, 0.01]).double()
    before = local_intrinsic_dimensionality(x, k=16).log().mean()
    x.requires_grad_()
    optimizer = torch.optim.SGD([x], lr=0.05)
    for _ in range(50):
        optimizer.zero_grad()
        ldreg_loss(x, k=16).backward()
        optimizer.step()
    assert local_intrinsic_dimensionality(x, k=16).log().mean() > before + 0.3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "l3"}, "Unknown norm 'l3'.*Valid: l1, l2"),
        ({"k": 1}, "k must be an integer >= 2"),
        ({"self_indices": torch.arange(6)}, "no reference was given"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ldreg_loss(torch.zeros(6, 3), **arguments)
