"""W processes against one on the concatenated batch: the same loss, the same gradient after DDP's averaging.

Run as a script, this file is the W processes; it then imports no pytest.
"""

import os
import subprocess
import sys
from contextlib import nullcontext, redirect_stderr
from io import StringIO
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

import solo_dimreg
from solo_dimreg import (
    TREGS,
    AdaDim,
    DecorrelatedBatchNorm,
    Decorrelation,
    DirectCLR,
    EffectiveRank,
    KoLeo,
    LDReg,
    LeJEPA,
    ShuffledDBN,
    SIGReg,
    Uniformity,
    VISReg,
    WassersteinUniformity,
)
from solo_dimreg.distributed import all_gather, all_mean, rank, shared_gathers, world_size
from solo_dimreg.errors import warn
from solo_dimreg.functional import matrix_entropy, uniformity
from solo_dimreg.metrics.streaming import FeatureStatistics
from solo_dimreg.nn import t_regs

GROUPS = (2, 3)
BATCH = 12
DTYPES = {"float32": torch.float32, "float64": torch.float64}
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


class Net(nn.Module):
    """An encoder and a projector, wide enough for every loss."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 8), nn.Tanh())
        self.projector = nn.Linear(8, 4)

    def forward(self, views):
        features = [self.encoder(view) for view in views]
        return features, [self.projector(r) for r in features]


def weighted_rows(z):
    """A loss that treats every row and every column differently, averaged over the local rows."""
    return (z * torch.arange(1.0, z.shape[1] + 1, dtype=z.dtype)).sin().sum(dim=1).mean()


def shuffled(layer, x):
    """Draws the axes from a random state that is another one in every process."""
    torch.manual_seed(100 + rank())
    return layer(x)


def momentum_of(views):
    return [(1.1 * view + 0.2).detach() for view in views]


# From features, embeddings and inputs of the views to a loss. Each is called in every process.
CASES = {
    "ldreg": lambda r, z, x: LDReg(k=5)(r),
    "ldreg of one view": lambda r, z, x: LDReg(k=5)(r[0]),
    "ldreg mle l2": lambda r, z, x: LDReg(k=5, estimator="mle", norm="l2")(r),
    "ldreg momentum": lambda r, z, x: LDReg(k=5)(r, momentum_of(r)),
    "ldreg momentum l2": lambda r, z, x: LDReg(k=5, norm="l2")(r, momentum_of(r)),
    "ldreg half": lambda r, z, x: LDReg(k=5)([view.bfloat16() for view in r]),
    "directclr": lambda r, z, x: DirectCLR(dim=5)(*r),
    "adadim": lambda r, z, x: AdaDim()(r, z),
    "adadim order 1": lambda r, z, x: AdaDim(gamma=1.0, beta_schedule="constant", order=1)(r, z),
    "decorrelation": lambda r, z, x: Decorrelation()(r),
    "effective rank": lambda r, z, x: EffectiveRank()(r),
    "entropy": lambda r, z, x: matrix_entropy(all_gather(z[0]), order=1),
    "uniformity": lambda r, z, x: uniformity(all_gather(z[0])),
    "uniformity of views": lambda r, z, x: Uniformity()(z),
    "wasserstein uniformity": lambda r, z, x: WassersteinUniformity()(z),
    "koleo": lambda r, z, x: KoLeo()(r),
    "sigreg": lambda r, z, x: SIGReg(64)(z),
    "lejepa": lambda r, z, x: LeJEPA(num_slices=64)(z, [z[0].sin()]),
    "visreg": lambda r, z, x: VISReg(64)(z),
    "t_regs": lambda r, z, x: TREGS()(z),
    "dbn": lambda r, z, x: weighted_rows(DecorrelatedBatchNorm(8, 2, eps=1e-3)(r[0])),
    "shuffled dbn": lambda r, z, x: weighted_rows(shuffled(ShuffledDBN(8, 4, eps=1e-3), r[0])),
}
# These are means over the rows of a process: only their average over the processes is the loss.
LOCAL = {"dbn", "shuffled dbn"}


def views_of(dtype, part=slice(None)):
    x = torch.randn(2, BATCH, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return list(x[:, part].to(dtype).unbind())


def compute(case, dtype, parallel):
    """Loss, and gradient of all parameters, of this process's part of the batch."""
    torch.manual_seed(0)
    net = Net().to(dtype)
    model = nn.parallel.DistributedDataParallel(net, find_unused_parameters=True) if parallel else net
    rows = BATCH // world_size()
    x = views_of(dtype, slice(rank() * rows, (rank() + 1) * rows))
    r, z = model(x)
    loss = CASES[case](r, z, x)
    loss.backward()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters()]
    return loss.detach(), torch.cat([g.flatten() for g in gradients])


def gather_unequal_rows():
    """Before any number of rows is agreed on, and after; more of them than agreed, and fewer; in a step."""
    messages = []
    gathers = (all_gather, lambda x: all_mean(x.mean(), len(x)))
    for agreed in (None, 2, 2 + world_size() - 1):
        for gather in gathers:
            if agreed is not None:
                gather(torch.zeros(agreed, 3))
            for context in (nullcontext, shared_gathers):
                try:
                    with context():
                        gather(torch.zeros(2 + rank(), 3).half())
                except ValueError as error:
                    messages.append(str(error))
    # Nothing is left in a collective, and other numbers of rows that all hold are right.
    sums = [all_gather(torch.full((rows, 2), 1.0 + rank())).sum() for rows in (4, 300, 1)]
    return messages, sums, all_gather(torch.arange(3) + rank())


def running_statistics():
    layer = ShuffledDBN(6, 2).double()
    rows = BATCH // world_size()
    for view in views_of(torch.float64, slice(rank() * rows, (rank() + 1) * rows)):
        layer(view)
    return layer.state_dict()


def averaged_rank():
    adadim = AdaDim().double()
    rows = BATCH // world_size()
    x = views_of(torch.float64, slice(rank() * rows, (rank() + 1) * rows))
    for scale in (1, 2):
        adadim(x, [view**scale for view in x])
    return adadim.metrics["alpha"]


def gathered_statistics():
    """Merge unequal parts, with embeddings and labels."""
    x, y = views_of(torch.float64)
    part = slice(0, 5) if rank() == 0 and world_size() > 1 else slice(5 * (world_size() > 1), None)
    if rank() > 1:
        part = slice(0, 0)
    statistics = FeatureStatistics()
    for row in range(*part.indices(BATCH)):
        statistics.update(x[row : row + 1], y[row : row + 1, :2], torch.tensor([row]))
    total = statistics.gather()
    moments = [total.features.covariance, total.embeddings.covariance]
    return [total.features.mean, *moments, total.sample["features"], total.sample["labels"].double()]


def collectives_of_a_step():
    """The collectives of forward and backward of all terms together, on two views of two kinds."""
    counts = {}
    all_gather(torch.zeros(BATCH // world_size()))  # the step before, in which a number of rows was agreed on
    originals = {name: getattr(dist, name) for name in ("all_gather", "all_reduce")}
    for name, original in originals.items():
        setattr(
            dist, name, lambda *a, n=name, f=original: (counts.__setitem__(n, counts.get(n, 0) + 1), f(*a))[1]
        )
    rows = BATCH // world_size()
    x = [view.requires_grad_() for view in views_of(torch.float32, slice(rank() * rows, (rank() + 1) * rows))]
    z = [(2 * view).sin() for view in x]
    losses = [LDReg(k=5), Decorrelation(), EffectiveRank()]
    with shared_gathers():
        total = sum(loss(x) + loss(z) for loss in losses) + AdaDim()(x, z)
    total.backward()
    for name, original in originals.items():
        setattr(dist, name, original)
    apart = sum(loss(x) + loss(z) for loss in losses) + AdaDim()(x, z)
    return counts, float(total.detach()), float(apart.detach())


def trees_of_a_step():
    """Count the spanning trees that this process computes for the two views of a step."""
    trees, original = [], t_regs.spanning_tree
    t_regs.spanning_tree = lambda x: (trees.append(1), original(x))[1]
    try:
        compute("t_regs", torch.float32, parallel=world_size() > 1)
    finally:
        t_regs.spanning_tree = original
    return len(trees)


def gather_integers():
    return all_gather(torch.tensor([[rank()], [10 + rank()]]))


def warned():
    """Return what a spawned process prints, without a launcher's environment."""
    with redirect_stderr(StringIO()) as printed:
        warn("once")
    return printed.getvalue()


def worker(rank_, size, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/init{size}", rank=rank_, world_size=size)
    results = {(case, name): compute(case, dtype, True) for case in CASES for name, dtype in DTYPES.items()}
    results["unequal"] = gather_unequal_rows()
    results["integers"] = gather_integers()
    results["warned"] = warned()
    results["statistics"] = running_statistics()
    results["alpha"] = averaged_rank()
    results["streamed"] = gathered_statistics()
    results["collectives"] = collectives_of_a_step()
    results["trees"] = trees_of_a_step()
    torch.save(results, f"{folder}/{size}-{rank_}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    for size in GROUPS:
        # Forked, so that torch is imported once for all processes of all groups.
        torch.multiprocessing.start_processes(worker, (size, sys.argv[1]), size, start_method="fork")
    sys.exit()

import pytest  # noqa: E402


@pytest.fixture(scope="module")
def all_results(tmp_path_factory):
    """Return what each process found, by size of the group; every group computes all cases once."""
    folder = tmp_path_factory.mktemp("gloo")
    root = Path(solo_dimreg.__file__).parent.parent
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, __file__, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return {
        size: [torch.load(folder / f"{size}-{i}.pt", weights_only=True) for i in range(size)]
        for size in GROUPS
    }


@pytest.fixture(params=GROUPS)
def results(request, all_results):
    return all_results[request.param]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_processes_equal_one(results, case, dtype):
    loss, gradient = compute(case, DTYPES[dtype], parallel=False)
    losses = torch.stack([result[case, dtype][0] for result in results])
    assert torch.isfinite(loss) and gradient.abs().max() > 0
    # bfloat16 features are rounded the same, but their gradients are summed after another rounding.
    tolerance = 1e-2 if "half" in case else TOLERANCE[dtype]
    if case not in LOCAL:
        torch.testing.assert_close(losses, loss.expand_as(losses), rtol=tolerance, atol=0)
    torch.testing.assert_close(losses.mean(), loss, rtol=tolerance, atol=0)
    for result in results:
        difference = (result[case, dtype][1] - gradient).norm() / gradient.norm()
        assert difference < tolerance


def test_unequal_batches_are_refused(results):
    counts = list(range(2, 2 + len(results)))
    for result in results:
        messages, sums, integers = result["unequal"]
        assert len(messages) == 12
        assert all(f"by rank they hold {counts}" in message for message in messages)
        ranks = range(1, 1 + len(results))
        assert sums == [2 * rows * sum(ranks) for rows in (4, 300, 1)]
        assert integers.tolist() == [row + i for i in range(len(results)) for row in range(3)]


def test_rows_come_in_the_order_of_ranks(results):
    expected = [row for i in range(len(results)) for row in ([i], [10 + i])]
    for result in results:
        assert result["integers"].tolist() == expected


def test_a_warning_is_printed_once(results):
    assert [result["warned"] for result in results] == ["warning: once\n", *[""] * (len(results) - 1)]


def test_state_is_that_of_one_process(results):
    for result in results:
        torch.testing.assert_close(result["statistics"], running_statistics(), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(result["alpha"], averaged_rank(), rtol=1e-10, atol=0)
        torch.testing.assert_close(result["streamed"], gathered_statistics(), rtol=1e-8, atol=1e-12)


def test_each_spanning_tree_is_computed_by_one_process(results):
    trees = [result["trees"] for result in results]
    assert trees == [1, 1, 0][: len(trees)] and trees_of_a_step() == 2


def test_one_process_gathers_nothing():
    x = torch.zeros(3, 2)
    assert all_gather(x) is x
    assert (world_size(), rank()) == (1, 0)


def test_a_step_sends_each_tensor_once(results):
    for result in results:
        counts, together, apart = result["collectives"]
        # Four views and, for each kind, the LIDs; no collective compares the sizes. Each comes back once.
        assert counts == {"all_gather": 6, "all_reduce": 6}
        assert abs(together - apart) < 1e-5 * abs(apart)
