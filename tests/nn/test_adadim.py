"""The AdaDim module: its weights, its average and its state."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from solo_dimreg import AdaDim
from solo_dimreg.functional import (
    effective_rank,
    matrix_entropy,
    matrix_mutual_information,
    ntxent_loss,
    vicreg_loss,
)


def batch(seed=0, b=12, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    r = torch.randn(2, b, 9, generator=generator, dtype=dtype)
    z = torch.randn(2, b, 5, generator=generator, dtype=dtype) * torch.logspace(0, -seed, 5)
    return list(r.unbind()), list(z.unbind())


def mean_rank(views):
    return sum(effective_rank(view).item() for view in views) / 2


def fill(z):
    return mean_rank(z) / 5


@pytest.mark.parametrize("order", [1, 2])
def test_the_loss_is_the_weighted_sum_of_its_parts(order):
    r, z = batch()
    adadim = AdaDim(
        alpha=0.3, gamma=0.5, beta_schedule="constant", order=order, sample_weight=2.0, dimension_weight=0.1,
        temperature=0.2, sim=10.0, var=5.0, cov=2.0,
    )  # fmt: skip
    information = matrix_mutual_information(torch.cat(r), torch.cat(z), order)
    expected = 0.3 * 2.0 * ntxent_loss(*z, 0.2) + 0.7 * 0.1 * vicreg_loss(*z, 10, 5, 2) + 0.5 * information
    torch.testing.assert_close(adadim(r, z), expected)


def test_metrics_are_those_of_the_last_call():
    r, z = (([view.requires_grad_() for view in views]) for views in batch())
    adadim = AdaDim()
    adadim(r, z)
    expected = {
        "alpha": fill(z),
        "beta": 0.01 * fill(z),
        "H_R": mean_rank(r),
        "H_Z": mean_rank(z),
        "matrix_entropy_R": matrix_entropy(torch.cat(r)).item(),
        "matrix_entropy_Z": matrix_entropy(torch.cat(z)).item(),
        "I_RZ": matrix_mutual_information(torch.cat(r), torch.cat(z)).item(),
        "loss_sample": ntxent_loss(*z).item(),
        "loss_dimension": vicreg_loss(*z).item(),
    }
    assert adadim.metrics.keys() == expected.keys()
    for name, value in expected.items():
        assert adadim.metrics[name].item() == pytest.approx(value, rel=1e-5)
        assert not adadim.metrics[name].requires_grad


def test_alpha_averages_the_filling_of_the_embedding():
    adadim = AdaDim(ema=0.9, rank_every=1).double()
    fills = []
    for step in range(4):
        r, z = batch(step)
        fills.append(fill(z))
        adadim(r, z)
        weights = [0.9 ** (step - i) for i in range(step + 1)]
        expected = sum(w * f for w, f in zip(weights, fills, strict=True)) / sum(weights)
        assert adadim.metrics["alpha"].item() == pytest.approx(expected, rel=1e-9)


def test_the_rank_is_estimated_every_few_steps_and_on_resuming_too():
    first, second = AdaDim(rank_every=3), AdaDim(rank_every=3)
    for step in range(7):
        if step == 4:
            second.load_state_dict(first.state_dict())
        for adadim in (first, second)[: 1 + (step >= 4)]:
            adadim(*batch(step))
            expected = 5 * fill(batch(step // 3 * 3)[1])
            assert adadim.metrics["H_Z"].item() == pytest.approx(expected, rel=1e-5)


def test_buffers_stay_in_float32_in_a_half_precision_module():
    adadim, precise = AdaDim(ema=0.999).bfloat16(), AdaDim(ema=0.999)
    for _ in range(5):
        adadim(*batch()), precise(*batch())
    assert adadim.rank_sum.dtype == torch.float32
    assert adadim.rank_weight == precise.rank_weight > 0


def test_alpha_of_a_small_batch_counts_the_rank_it_can_have():
    r, z = batch(b=2)
    adadim = AdaDim()
    adadim(r, z)
    assert adadim.metrics["alpha"].item() == pytest.approx(mean_rank(z) / 2, rel=1e-6)


def views_of_rank(rank, agreement, b=64, d=256):
    """Two views whose embeddings fill ``rank`` directions evenly and agree more or less."""
    generator = torch.Generator().manual_seed(1)
    one, other = torch.randn(2, b, rank, generator=generator).unbind()
    directions, _ = torch.linalg.qr(torch.randn(d, rank, generator=generator))
    return [one @ directions.T, (agreement * one + (1 - agreement**2) ** 0.5 * other) @ directions.T]


def alpha_of(z, **options):
    adadim = AdaDim(**options)
    adadim([torch.ones(len(z[0]), 3)] * 2, z)
    return adadim.metrics["alpha"].item()


def test_alpha_does_not_depend_on_how_well_the_views_agree():
    alphas = [alpha_of(views_of_rank(256, agreement)) for agreement in (0, 0.5, 0.9, 1)]
    assert max(alphas) - min(alphas) < 0.01 and min(alphas) > 0.8
    falling = [alpha_of(views_of_rank(256, agreement), rank_of="both") for agreement in (0, 0.9, 1)]
    assert falling[0] > 1.5 * falling[-1] and falling[0] > falling[1] > falling[2]


@pytest.mark.parametrize("options", [{}, {"rank_of": "both"}])
def test_alpha_grows_with_the_rank_of_the_embeddings(options):
    alphas = [alpha_of(views_of_rank(rank, 0.9), **options) for rank in (2, 8, 32, 64)]
    assert alphas == sorted(alphas) and alphas[-1] > 5 * alphas[0]


def test_alpha_against_the_start_goes_from_0_to_1():
    adadim = AdaDim(rank_against="start", ema=0.0, rank_every=1)
    r = [torch.ones(64, 3)] * 2
    alphas = []
    for rank in (8, 32, 4, 64):
        adadim(r, views_of_rank(rank, 0.9))
        alphas.append(adadim.metrics["alpha"].item())
    start, last = (mean_rank(views_of_rank(rank, 0.9)) for rank in (8, 64))
    assert alphas[0] == alphas[2] == 0 and 0 < alphas[1] < alphas[3]
    assert alphas[3] == pytest.approx((last - start) / (64 - start), rel=1e-4)
    resumed = AdaDim(rank_against="start", ema=0.0, rank_every=1)
    resumed.load_state_dict(adadim.state_dict())
    resumed(r, views_of_rank(32, 0.9))
    assert resumed.metrics["alpha"].item() == pytest.approx(alphas[1], rel=1e-6)


@pytest.mark.parametrize(
    ("alpha", "progress", "expected"),
    [(0.3, 0.9, 0.3), (0, 0.9, 0), (1, 0.1, 1), ("linear", 0.2, 0.2), ("cosine", 0, 0), ("cosine", 1, 1),
     ("cosine", 1 / 3, 0.25)],
)  # fmt: skip
def test_alpha_without_the_effective_rank(alpha, progress, expected):
    adadim = AdaDim(alpha=alpha)
    adadim(*batch(), progress=progress)
    assert adadim.metrics["alpha"].item() == pytest.approx(expected, abs=1e-7)
    assert adadim.rank_weight == 0


@pytest.mark.parametrize(
    ("schedule", "expected"), [("gradual", 2 * 0.3), ("constant", 2.0), ("linear", 2 * 0.4)]
)
def test_schedules_of_beta(schedule, expected):
    adadim = AdaDim(alpha=0.3, gamma=2.0, beta_schedule=schedule)
    adadim(*batch(), progress=0.4)
    assert adadim.metrics["beta"].item() == pytest.approx(expected)


@pytest.mark.parametrize("gamma", [-0.5, 0.5])
def test_gamma_of_either_sign(gamma):
    r, z = batch()
    losses = [AdaDim(alpha=0.3, gamma=each, beta_schedule="constant")(r, z) for each in (0, gamma)]
    information = matrix_mutual_information(torch.cat(r), torch.cat(z))
    torch.testing.assert_close(losses[1] - losses[0], gamma * information)


def test_no_gamma_is_the_first_version():
    r, z = (([view.requires_grad_() for view in views]) for views in batch())
    adadim = AdaDim(gamma=0)
    adadim(r, z).backward()
    assert r[0].grad is None and z[0].grad is not None


class Products(TorchDispatchMode):
    """Counts the matrix products and the decompositions."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("mm", "_linalg_eigh", "_linalg_svd"):
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


# NT-Xent takes one product, VICReg one a view, the information two Gram matrices.
@pytest.mark.parametrize(
    ("options", "products", "absent"),
    [
        ({"alpha": 0, "gamma": 0}, 2, {"H_R", "H_Z", "I_RZ", "loss_sample"}),
        ({"alpha": 1, "gamma": 0}, 1, {"H_R", "H_Z", "I_RZ", "loss_dimension"}),
        ({"alpha": 0.3, "gamma": 0}, 3, {"H_R", "H_Z", "I_RZ"}),
        ({"alpha": "linear", "gamma": 0}, 3, {"H_R", "H_Z", "I_RZ"}),
        ({"alpha": 0.3}, 5, {"H_R", "H_Z"}),
    ],
)
def test_what_the_loss_does_not_need_is_not_computed(options, products, absent):
    r, z = batch()
    adadim = AdaDim(**options)
    with Products() as found:
        loss = adadim(r, z, progress=0.5)
    assert found.counts == {"mm": products}
    assert not absent & adadim.metrics.keys()
    alpha = adadim.metrics["alpha"]
    expected = alpha * ntxent_loss(*z) + (1 - alpha) * vicreg_loss(*z)
    if adadim.gamma:
        expected = expected + 0.01 * alpha * matrix_mutual_information(torch.cat(r), torch.cat(z))
    torch.testing.assert_close(loss, expected)


def test_alpha_gets_no_gradient():
    r, z = batch()
    z = [view.requires_grad_() for view in z]
    adadim = AdaDim(gamma=0)
    loss = adadim(r, z)
    alpha = adadim.metrics["alpha"]
    expected = alpha * ntxent_loss(*z) + (1 - alpha) * vicreg_loss(*z)
    torch.testing.assert_close(*(torch.autograd.grad(value, z)[0] for value in (loss, expected)))


def test_a_resumed_run_goes_on_exactly():
    first, second = AdaDim(), AdaDim()
    first(*batch(1))
    second.load_state_dict(first.state_dict())
    assert second(*batch(2)) == first(*batch(2))
    assert second.metrics == first.metrics


def test_evaluation_leaves_the_average_alone():
    adadim = AdaDim()
    adadim(*batch(1))
    alpha, state = adadim.metrics["alpha"], {k: v.clone() for k, v in adadim.state_dict().items()}
    adadim.eval()(*batch(3))
    assert adadim.metrics["alpha"] == alpha
    assert all(torch.equal(adadim.state_dict()[name], value) for name, value in state.items())


def test_evaluation_before_training_uses_the_batch():
    _, z = batch(1)
    adadim = AdaDim().eval()
    adadim(*batch(1))
    assert adadim.metrics["alpha"].item() == pytest.approx(fill(z), rel=1e-5)


def test_a_step_that_overflowed_leaves_the_average_alone():
    adadim = AdaDim()
    adadim(*batch(1))
    alpha = adadim.metrics["alpha"]
    r, z = batch(2)
    z[0][0, 0] = torch.inf
    assert not torch.isfinite(adadim(r, z))
    assert adadim.metrics["alpha"] == alpha


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r, z: ((r[:1], z), {}), "r_views must hold two tensors of shape \\(B, D\\), got 1"),
        (lambda r, z: ((r, z * 2), {}), "z_views must hold two tensors of shape \\(B, D\\), got 4"),
        (lambda r, z: ((r, [v[:-1] for v in z]), {}), "got 24 and 22 rows"),
        (lambda r, z: ((r, z), {"progress": 1.1}), r"progress must be a finite number in \[0, 1\], got 1.1"),
    ],
)
def test_wrong_arguments_are_refused(change, message):
    arguments, options = change(*batch())
    with pytest.raises(ValueError, match=message):
        AdaDim()(*arguments, **options)


@pytest.mark.parametrize("against", ["attainable", "start"])
def test_a_first_step_that_overflowed_leaves_nothing_behind(against):
    clean, poisoned = (AdaDim(rank_against=against, rank_every=4) for _ in range(2))
    r, z = batch(1)
    z[0][0, 0] = torch.nan
    poisoned(r, z)
    for step in (2, 3, 4):
        assert torch.isfinite(poisoned(*batch(step))) and poisoned.metrics["alpha"] == 0
    poisoned(*batch(5))
    clean(*batch(5))
    assert poisoned.metrics["H_Z"] == clean.metrics["H_Z"]
    assert poisoned.start_rank == clean.start_rank
