"""Whitening layers against batch normalization and the functions; the regularizer against its function."""

import pytest
import torch
from torch import nn

import solo_dimreg
from solo_dimreg import DecorrelatedBatchNorm, Decorrelation, ShuffledDBN
from solo_dimreg.functional import decorrelation_loss, zca_whiten
from solo_dimreg.functional.decorrelation import automatic_groups


def embeddings(b=40, d=6, seed=0, dtype=torch.float64):
    mixing = torch.eye(d) + torch.randn(d, d, generator=torch.Generator().manual_seed(9))
    x = torch.randn(b, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return x @ mixing.to(dtype) + 1


@pytest.mark.parametrize("affine", [False, True])
def test_groups_of_one_axis_are_batch_normalization(affine):
    ours = DecorrelatedBatchNorm(6, num_groups=6, affine=affine, momentum=0.3).double()
    theirs = nn.BatchNorm1d(6, affine=affine, momentum=0.3).double()
    for seed in range(3):
        torch.testing.assert_close(ours(embeddings(seed=seed)), theirs(embeddings(seed=seed)))
    torch.testing.assert_close(ours.running_covariance.flatten(), theirs.running_var)
    torch.testing.assert_close(ours.eval()(embeddings()), theirs.eval()(embeddings()))
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]


@pytest.mark.parametrize("num_groups", [1, 2, 3])
def test_training_is_the_function(num_groups):
    x = embeddings()
    layer = DecorrelatedBatchNorm(6, num_groups, eps=1e-3).double()
    torch.testing.assert_close(layer(x), zca_whiten(x, num_groups, 1e-3))


@pytest.mark.parametrize("layer_type", [DecorrelatedBatchNorm, ShuffledDBN])
def test_evaluation_whitens_with_the_running_statistics(layer_type):
    x = embeddings(b=400)
    layer = layer_type(6, num_groups=2, momentum=1.0, eps=1e-9).double()
    layer(x)
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    whitened = layer.eval()(x)
    for part in whitened.split(3, dim=1):
        torch.testing.assert_close(part.T.cov(), torch.eye(3).double(), rtol=1e-6, atol=1e-6)
    # Rows do not see each other, a single one included, and nothing moves.
    torch.testing.assert_close(layer(x[:1]), whitened[:1])
    assert all(torch.equal(value, layer.state_dict()[name]) for name, value in state.items())


def test_a_saved_layer_goes_on_exactly():
    first, second = ShuffledDBN(6, 2), ShuffledDBN(6, 2)
    first(embeddings(dtype=torch.float32))
    second.load_state_dict(first.state_dict())
    x = embeddings(seed=1, dtype=torch.float32)
    torch.manual_seed(1)
    expected = first(x)
    torch.manual_seed(1)
    torch.testing.assert_close(second(x), expected, rtol=0, atol=0)
    torch.testing.assert_close(second.eval()(x), first.eval()(x), rtol=0, atol=0)


def test_the_shuffle_is_undone():
    x = embeddings()
    layer = ShuffledDBN(6, num_groups=2).double()
    torch.manual_seed(3)
    whitened = layer(x)
    torch.manual_seed(3)
    order = torch.randperm(6)
    expected = torch.empty_like(x)
    expected[:, order] = zca_whiten(x[:, order], 2)
    torch.testing.assert_close(whitened, expected)


def test_the_shuffle_is_fresh_at_every_forward():
    x = embeddings()
    layer = ShuffledDBN(6, num_groups=3).double()
    first = layer(x)
    assert any(not torch.allclose(layer(x), first) for _ in range(20))


def test_shuffling_one_group_changes_nothing():
    x = embeddings()
    torch.testing.assert_close(ShuffledDBN(6, 1).double()(x), zca_whiten(x))


def test_gradient_of_the_shuffled_layer():
    layer = ShuffledDBN(4, num_groups=2, eps=1e-2).double()

    def shuffled(x):
        torch.manual_seed(0)
        return layer(x)

    assert torch.autograd.gradcheck(shuffled, (embeddings(8, 4).requires_grad_(),))


@pytest.mark.parametrize("layer_type", [DecorrelatedBatchNorm, ShuffledDBN])
def test_half_precision_under_autocast(layer_type):
    layer = layer_type(6, num_groups=2, affine=True)
    x = embeddings(dtype=torch.float32).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        whitened = layer(x)
    whitened.sin().sum().backward()
    assert whitened.dtype == torch.float32 and torch.isfinite(x.grad).all()


@pytest.mark.parametrize(
    ("shape", "message"),
    [((4, 6), "needs more than 6 samples, got 4"), ((9, 5), "must have 6 axes"), ((9, 6, 1), "shape")],
)
def test_wrong_batches_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        DecorrelatedBatchNorm(6)(torch.zeros(shape))


def test_the_regularizer_averages_its_function_over_the_views():
    x1, x2 = embeddings(), embeddings(seed=1)
    loss = Decorrelation(2.0, 3.0, 0.5)([x1, x2], momentum_views=[x2])
    expected = (decorrelation_loss(x1, 2.0, 3.0, 0.5) + decorrelation_loss(x2, 2.0, 3.0, 0.5)) / 2
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(Decorrelation()(x1), decorrelation_loss(x1))


def test_minimizing_the_regularizer_decorrelates():
    x = embeddings(60, 4).requires_grad_()
    regularizer = Decorrelation()
    before = regularizer(x).item()
    optimizer = torch.optim.Adam([x], lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        regularizer(x).backward()
        optimizer.step()
    assert regularizer(x).item() < 0.1 * before


def test_a_regularizer_without_views_is_refused():
    with pytest.raises(ValueError, match="views must hold at least 1"):
        Decorrelation()([])


def test_evaluation_decomposes_the_running_covariance_once(monkeypatch):
    layer = DecorrelatedBatchNorm(6, 2)
    calls = []
    exact = solo_dimreg.nn.decorrelation.inverse_square_root
    monkeypatch.setattr(
        "solo_dimreg.nn.decorrelation.inverse_square_root", lambda *a: calls.append(1) or exact(*a)
    )
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    layer.train()(x)
    first = [layer.eval()(x) for _ in range(3)]
    assert len(calls) == 1 and torch.equal(first[0], first[2])
    changes = [
        lambda: layer.train()(2 * x),
        lambda: layer.running_covariance.mul_(2),
        lambda: layer.load_state_dict(DecorrelatedBatchNorm(6, 2).state_dict()),
        lambda: layer.double(),
    ]
    for number, change in enumerate(changes, 2):
        change()
        found = layer.eval()(x)
        assert len(calls) == number
        fresh = DecorrelatedBatchNorm(6, 2).to(layer.running_mean.dtype).eval()
        fresh.load_state_dict(layer.state_dict())
        torch.testing.assert_close(found, fresh(x))
        calls.pop()


@pytest.mark.parametrize("kind", [DecorrelatedBatchNorm, ShuffledDBN])
def test_a_batch_that_overflowed_leaves_the_running_statistics_alone(kind):
    layer = kind(6, 2)
    layer(torch.randn(20, 6))
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    for bad in (torch.inf, torch.nan):
        x = torch.randn(20, 6)
        x[3, 2] = bad
        layer(x)
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name])


def test_running_statistics_stay_in_float32_in_a_half_precision_module():
    assert DecorrelatedBatchNorm(6, 2).bfloat16().running_covariance.dtype == torch.float32


@pytest.mark.parametrize(("b", "groups"), [(6, 2), (40, 1), (4, 3), (3, 6), (5, 3)])
def test_automatic_groups_have_at_most_half_as_many_axes_as_samples(b, groups):
    x = embeddings(b)
    layer = ShuffledDBN(6, "auto").double()
    torch.manual_seed(0)
    whitened = layer(x)
    assert layer.num_groups == groups and layer.running_covariance.shape == (groups, 6 // groups, 6 // groups)
    torch.manual_seed(0)
    torch.testing.assert_close(whitened, ShuffledDBN(6, groups).double()(x))
    # The groups are settled: a later batch of another size does not regroup the running statistics.
    layer(embeddings(39, seed=1))
    assert layer.num_groups == groups


@pytest.mark.parametrize(
    ("d", "b", "groups"),
    [
        (2048, 4096, 8),
        (2048, 256, 16),
        (512, 4096, 2),
        (256, 64, 8),
        (256, 512, 1),
        (128, 128, 2),
        (2050, 8192, 10),
    ],
)
def test_automatic_groups_have_at_most_256_axes(d, b, groups):
    assert automatic_groups(d, b) == groups


def test_automatic_groups_are_read_back():
    first, second = (DecorrelatedBatchNorm(6, "auto").double() for _ in range(2))
    first(embeddings(6))
    second.load_state_dict(first.state_dict())
    assert second.num_groups == 2
    torch.testing.assert_close(second.eval()(embeddings()), first.eval()(embeddings()), rtol=0, atol=0)


@pytest.mark.parametrize("layer_type", [DecorrelatedBatchNorm, ShuffledDBN])
@pytest.mark.parametrize("groups", [2, "auto"])
def test_evaluation_by_the_statistics_of_the_batch(layer_type, groups):
    x = embeddings(b=8)
    layer = layer_type(6, groups, eps=0, track_running_stats=False).double()
    layer(embeddings(seed=2))
    assert not layer.state_dict()
    torch.testing.assert_close(layer.eval()(x), zca_whiten(x, 2, 0))


@pytest.mark.parametrize("layer_type", [DecorrelatedBatchNorm, ShuffledDBN])
def test_no_eps_leaves_constant_axes_finite(layer_type):
    x = torch.ones(8, 6).requires_grad_()
    out = layer_type(6, 2, eps=0)(x)
    out.sum().backward()
    assert torch.isfinite(out).all() and torch.isfinite(x.grad).all()


def test_a_state_from_before_the_first_batch_settles_nothing():
    first, second = (DecorrelatedBatchNorm(6, "auto").double() for _ in range(2))
    second.load_state_dict(first.state_dict())
    second(embeddings(40))
    assert second.num_groups == 1


def test_a_batch_too_small_for_its_groups_is_evaluated_with_more():
    layer = DecorrelatedBatchNorm(6, 1, track_running_stats=False).double().eval()
    x = embeddings(4)
    torch.testing.assert_close(layer(x), zca_whiten(x, 2))
    torch.testing.assert_close(layer(embeddings()), zca_whiten(embeddings(), 1))


@pytest.mark.parametrize(("scale", "eps"), [(1e20, 1e-5), (1e20, 0), (1e-25, 0)])
def test_whitening_at_every_scale(scale, eps):
    x = embeddings(dtype=torch.float32)
    expected = zca_whiten(x.double(), 2, 0).float()
    layer = DecorrelatedBatchNorm(6, 2, eps=eps)
    torch.testing.assert_close(layer(scale * x), expected, rtol=1e-3, atol=1e-4)
    assert torch.isfinite(layer.running_covariance).all() and torch.isfinite(layer.running_mean).all()


def test_evaluation_in_inference_mode_leaves_gradients_possible():
    x = embeddings(dtype=torch.float32)
    layer = DecorrelatedBatchNorm(6, 2)
    layer(x)
    layer.eval()
    with torch.inference_mode():
        expected = layer(x)
    out = layer(x.requires_grad_())
    out.sin().sum().backward()
    assert torch.equal(out.detach(), expected) and torch.isfinite(x.grad).all()
