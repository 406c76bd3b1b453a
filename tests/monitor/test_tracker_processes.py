"""Tracker and metrics over two processes with unequal parts against one on all rows.

Run as a script, this file is the processes; it then imports no pytest.
"""

import os
import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torchmetrics import MetricCollection

import solo_dimreg
from solo_dimreg import DimensionalityTracker
from solo_dimreg.distributed import rank, world_size
from solo_dimreg.metrics import EffectiveRank, GeometricMeanLID, MatrixMutualInformation, RankMe

ROWS = 300


def found():
    """Return what a process finds of its part; the tracker twice, first after 50 rows."""
    x = torch.randn(ROWS, 10, generator=torch.Generator().manual_seed(0))
    z = x[:, :4] + torch.randn(ROWS, 4, generator=torch.Generator().manual_seed(1))
    if world_size() > 1:
        part = slice(0, 110) if rank() == 0 else slice(110, None)
        x, z = x[part], z[part]
    tracker = DimensionalityTracker()
    collection = MetricCollection(
        {
            "rank": EffectiveRank(),
            "lid": GeometricMeanLID(),
            "rankme": RankMe(),
            "information": MatrixMutualInformation(),
        }
    )
    some = GeometricMeanLID(max_samples=40)
    results = []
    for r, e in ((x[:50], z[:50]), (x[50:], z[50:])):
        tracker.update(r, e)
        collection.update(features=r, embeddings=e)
        collection.compute()  # before torchmetrics 1.5 the metrics of one group kept their first result
        some.update(r)
        results.append(tracker.compute())
    computed = collection.compute()
    counts = tracker.count, int(collection["rank"].sums[0, 0])
    return (results[1], computed), counts, some.compute(), results[0]["samples"]


def worker(rank_, size, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank_, world_size=size)
    torch.save(found(), f"{folder}/{rank_}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.multiprocessing.start_processes(worker, (2, sys.argv[1]), 2, start_method="fork")
    sys.exit()

import pytest  # noqa: E402


def test_two_processes_are_one_on_all(tmp_path):
    root = Path(solo_dimreg.__file__).parent.parent
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, __file__, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (expected_figures, expected_metrics), *_ = found()
    values = []
    for i, own in enumerate((110, 190)):
        (figures, metrics), counts, some, samples = torch.load(tmp_path / f"{i}.pt", weights_only=True)
        assert figures == pytest.approx(expected_figures, rel=1e-5, abs=2e-5, nan_ok=True)
        for name, value in expected_metrics.items():
            torch.testing.assert_close(metrics[name], value, rtol=1e-5, atol=0)
        # What a process has seen stays its own.
        assert counts == (own, own) and samples == 100
        values.append(some)
    # Of 40 rows of both, the same choice everywhere.
    assert torch.equal(*values) and 1 < values[0] < 30
