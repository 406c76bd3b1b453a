"""The losses that spread embeddings: each module against its function, and at the edges."""

import copy

import pytest
import torch
from numeric import normal

from solo_dimreg import TREGS, KoLeo, LeJEPA, SIGReg, Uniformity, VISReg, WassersteinUniformity
from solo_dimreg import functional as F
from solo_dimreg.nn._slices import unit_slices


def first_slices(x, count):
    return unit_slices(x.detach(), torch.tensor(0), count)


# A module, its function of one view, and how it joins views.
CASES = {
    "sigreg": (lambda: SIGReg(64), lambda x: F.sigreg_loss(x, first_slices(x, 64)), "mean"),
    "visreg": (lambda: VISReg(64), lambda x: F.visreg_loss(x, first_slices(x, 64)), "mean"),
    "t_regs": (TREGS, F.t_reg_loss, "sum"),
    "uniformity": (Uniformity, F.uniformity, "mean"),
    "koleo": (KoLeo, F.koleo_loss, "mean"),
    "wasserstein": (WassersteinUniformity, F.wasserstein_uniformity, "together"),
}


@pytest.mark.parametrize("name", CASES)
def test_views_are_joined(name):
    make, function, how = CASES[name]
    views = [normal(9, 5, seed=seed).requires_grad_() for seed in (0, 1)]
    torch.testing.assert_close(make()(views[0]), function(views[0]))
    if how == "together":
        expected = function(torch.cat(views))
    else:
        expected = getattr(torch.stack([function(view) for view in views]), how)()
    loss = make()(views, [views[0]])
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, views), torch.autograd.grad(expected, views))


@pytest.mark.parametrize("name", CASES)
def test_half_precision_is_promoted_before_anything_is_computed(name):
    x = normal(16, 8).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = CASES[name][0]()(x)
    torch.testing.assert_close(found, CASES[name][0]()(x.float()), rtol=0, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_minimizing_it_fills_the_dimensions(name):
    """From a cloud around a line; KoLeo and the trees need no more than that it is not one point."""
    x = (normal(32, 6) * torch.tensor([1.0, 0.1, 0.1, 0.1, 0.1, 0.1])).float().requires_grad_()
    before = F.effective_rank(x.detach(), center=True)
    loss, optimizer = CASES[name][0](), torch.optim.Adam([x], lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()
    assert before < 4 and F.effective_rank(x.detach(), center=True) > 5.5


@pytest.mark.parametrize("make", [lambda: SIGReg(8), lambda: VISReg(8), lambda: LeJEPA(num_slices=8)])
def test_slices_change_with_the_steps_and_a_resumed_run_goes_on_with_them(make):
    x = [normal(12, 6), normal(12, 6, seed=1)]
    first, torch_state = make(), torch.get_rng_state()
    losses = [first(x) for _ in range(4)]
    assert len({loss.item() for loss in losses}) == 4 and torch.equal(torch_state, torch.get_rng_state())
    second, resumed = make(), make()
    assert [second(x) for _ in range(2)] == losses[:2]
    resumed.load_state_dict(copy.deepcopy(second.state_dict()))
    assert [resumed(x) for _ in range(2)] == losses[2:]
    second.eval()
    assert second(x) == second(x) == losses[2]


def test_slices_are_unit_vectors_that_no_precision_changes():
    x = normal(3, 7)
    slices = unit_slices(x, torch.tensor(5), 50)
    torch.testing.assert_close(slices.norm(dim=0), torch.ones(50).double())
    torch.testing.assert_close(unit_slices(x.float(), torch.tensor(5), 50), slices.float())
    assert slices.mean(dim=1).abs().max() < 0.3


def test_lejepa_is_its_formula():
    large, small = normal(2, 9, 5).unbind(), normal(3, 9, 5, seed=1).unbind()
    views = [view.clone().requires_grad_() for view in (*large, *small)]
    lejepa = LeJEPA(weight=0.2, num_slices=16)
    loss = lejepa(views[:2], views[2:])
    stacked = torch.stack(views).detach().numpy()
    invariance = ((stacked - stacked[:2].mean(axis=0)) ** 2).mean()
    sigreg = torch.stack([F.sigreg_loss(view, first_slices(view, 16)) for view in views]).mean()
    assert loss.item() == pytest.approx(0.8 * invariance + 0.2 * sigreg.item(), rel=1e-9)
    assert lejepa.metrics["invariance"].item() == pytest.approx(invariance, rel=1e-9)
    assert lejepa.metrics["sigreg"].item() == pytest.approx(sigreg.item(), rel=1e-9)
    # No stop-gradient: all views are moved, the mean of the large ones too.
    assert all(gradient.abs().max() > 0 for gradient in torch.autograd.grad(loss, views))


def test_the_gradient_of_lejepa():
    views = tuple(view.requires_grad_() for view in normal(3, 4, 3).unbind())
    lejepa = LeJEPA(weight=0.5, num_slices=4).eval()
    assert torch.autograd.gradcheck(lambda a, b, c: lejepa([a, b], [c]), views)


@pytest.mark.parametrize("name", CASES)
def test_wrong_views_are_refused(name):
    module = CASES[name][0]()
    with pytest.raises(ValueError, match="views must hold at least 1"):
        module([])
    with pytest.raises(ValueError, match="views must all have the same shape"):
        module([torch.zeros(4, 3), torch.zeros(5, 3)])


def test_one_view_has_nothing_to_agree_with():
    with pytest.raises(ValueError, match="views and small_views must hold at least 2"):
        LeJEPA()([torch.zeros(4, 3)])
