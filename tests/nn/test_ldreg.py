"""The LDReg module against LDReg's functions."""

import pytest
import torch

from solo_dimreg import LDReg
from solo_dimreg.functional import ldreg_loss, ldreg_penalty, local_intrinsic_dimensionality


def views(count=2, b=10, d=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(count, b, d, generator=generator, dtype=torch.float64).requires_grad_().unbind())


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_one_view_is_the_function(norm):
    (x,) = views(1)
    expected = ldreg_loss(x, k=5, norm=norm)
    for given in (x, [x]):
        torch.testing.assert_close(LDReg(k=5, norm=norm)(given), expected, rtol=0, atol=0)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_views_share_one_mean_and_one_detached_reference(norm):
    x1, x2 = views()
    loss = LDReg(k=5, norm=norm)([x1, x2])
    expected = ldreg_loss(torch.cat([x1, x2]), k=5, norm=norm)
    torch.testing.assert_close(loss, expected)
    gradients = (torch.autograd.grad(value, (x1, x2)) for value in (loss, expected))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("estimator", ["mom", "mle"])
@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_momentum_views_join_the_reference_and_sum_the_terms(norm, estimator):
    x1, x2 = views()
    m1, m2 = views(seed=1)
    loss = LDReg(k=5, estimator=estimator, norm=norm)([x1, x2], [m1, m2])
    reference = torch.cat([x1, x2, m1, m2]).detach()
    own = torch.arange(10)
    terms = [
        ldreg_penalty(local_intrinsic_dimensionality(x, reference, 5, estimator, self_indices=rows), norm)
        for x, rows in ((x1, own), (x2, 10 + own))
    ]
    torch.testing.assert_close(loss, terms[0] + terms[1])
    loss.backward()
    assert m1.grad_fn is not None and torch.autograd.grad(loss, m1, allow_unused=True)[0] is None


def test_half_precision_under_autocast():
    x = [view.detach().half().requires_grad_() for view in views()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = LDReg(k=5)(x)
    loss.backward()
    expected = LDReg(k=5)([view.detach().float() for view in x])
    torch.testing.assert_close(loss.detach(), expected, rtol=0, atol=0)
    assert x[0].grad.dtype == torch.float16 and torch.isfinite(x[0].grad).all()


@pytest.mark.parametrize("b", [1, 2])
@pytest.mark.parametrize("momentum", [False, True])
def test_small_batches_are_finite(b, momentum):
    x = [torch.ones(b, 3, requires_grad=True), torch.zeros(b, 3, requires_grad=True)]
    loss = LDReg()(x, [torch.ones(b, 3)] if momentum else ())
    loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(view.grad).all() for view in x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "views must hold at least 1"),
        (
            ([torch.zeros(4, 3), torch.zeros(5, 3)],),
            r"views must all have the same shape, got \[\(4, 3\), \(5, 3\)\]",
        ),
        ((torch.zeros(2, 4, 3),), r"views must have shape \(B, D\)"),
        ((torch.zeros(4, 3), torch.zeros(4, 2)), "widths 2 and 3"),
    ],
)
def test_wrong_views_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LDReg()(*arguments)


def test_near_identical_class_tokens_are_finite_where_the_matrix_product_gives_nan():
    """A ViT that has hardly begun to train: every image has almost the same class token."""
    import timm

    torch.manual_seed(0)
    vit = timm.create_model("test_vit", num_classes=0, img_size=32, global_pool="token").eval()
    images = torch.randn(1, 3, 32, 32) + 1e-5 * torch.randn(32, 3, 32, 32)
    tokens = vit(images).detach().requires_grad_()

    squares = tokens.square().sum(dim=1)
    shortcut = (squares[:, None] + squares - 2 * tokens @ tokens.T).fill_diagonal_(torch.inf)
    assert torch.isnan(shortcut.sqrt()).any()
    # Cut off at zero, as torch's own distance is, the nearest all coincide: 0 / 0.
    nearest = shortcut.clamp_min(0).sqrt().sort(dim=1).values[:, :8]
    mean = nearest[:, :-1].mean(dim=1)
    assert torch.isnan(-(mean / (nearest[:, -1] - mean)).log().mean())

    loss = LDReg(k=8)(tokens)
    loss.backward()
    exact = tokens.detach().double().requires_grad_()
    expected = LDReg(k=8)(exact)
    expected.backward()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(
        tokens.grad.double(), exact.grad, rtol=1e-2, atol=1e-4 * exact.grad.abs().max()
    )


@pytest.mark.parametrize(("b", "k"), [(40, 16), (512, 16), (1024, 32)])
def test_the_neighbours_grow_with_the_batch(b, k):
    x = views(1, b, 3)
    assert LDReg()(x) == LDReg(k=k)(x) != LDReg(k=k + 1)(x)


@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_min_is_the_opposite_of_max(norm, momentum):
    x, m = views(), views(seed=1) if momentum else []
    assert LDReg(k=5, norm=norm, direction="min")(x, m) == -LDReg(k=5, norm=norm)(x, m)


def test_a_capped_k_is_said_once(capsys):
    small, large = views(b=10), views(b=40)
    line = "warning: LDReg: k = 64 is capped at 19, the number of other features in a step; "
    module = LDReg(k=64)
    module(large)
    assert not capsys.readouterr().err
    for _ in range(3):
        module(small)
    assert capsys.readouterr().err == line + "give k <= 19, or a larger batch.\n"
    LDReg(k=64)(small, views(b=30, seed=1))  # the momentum encoder's are neighbours too
    assert not capsys.readouterr().err
    LDReg(k=19)(small)
    assert not capsys.readouterr().err
    # A training under solo-learn is announced with the k that it has.
    announced = LDReg(k=64)
    announced.cap_is_known = True
    announced(small)
    assert not capsys.readouterr().err


def test_a_capped_k_compiles_into_one_graph():
    module, (x,) = LDReg(k=64), views(1)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert compiled(x) == module(x) == LDReg(k=9)(x)
