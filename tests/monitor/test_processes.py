"""The callback over two processes of a training by Lightning.

Run as a script, this file is the processes; it then imports no pytest.
"""

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import solo_dimreg
from solo_dimreg import DimensionalityMonitor
from solo_dimreg.monitor.lightning import LIGHTNINGS


def train(name, folder):
    pl = importlib.import_module(name)

    class Model(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = nn.Linear(10, 6), nn.Linear(6, 1)

        def training_step(self, batch, batch_idx):
            return self.head(self.backbone(batch[0])).pow(2).mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    torch.manual_seed(0)
    x = torch.randn(80, 10, generator=torch.Generator().manual_seed(0))
    model = Model()
    seen = []
    model.backbone.register_forward_hook(lambda module, inputs, output: seen.append(output.detach().clone()))
    monitor = DimensionalityMonitor(metrics=["effective_rank", "lid"], every_n_steps=3, every_n_epochs=1)
    other = DimensionalityMonitor(features="head", metrics=["mean_share"], every_n_epochs=9)
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[monitor, other],
    )
    trainer.fit(model, DataLoader(TensorDataset(x), batch_size=10))
    torch.save((monitor.history, torch.cat(seen[len(seen) // 2 :])), f"{folder}/{trainer.global_rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(*sys.argv[1:])
    sys.exit()

import pytest  # noqa: E402

from solo_dimreg.functional import effective_rank  # noqa: E402

INSTALLED = [name for name in LIGHTNINGS if importlib.util.find_spec(name.partition(".")[0])]


@pytest.mark.parametrize(
    "name", [*INSTALLED[:1], *(pytest.param(name, marks=pytest.mark.slow) for name in INSTALLED[1:])]
)
def test_both_have_the_figures_of_all_samples(name, tmp_path):
    root = Path(solo_dimreg.__file__).parent.parent
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, __file__, name, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (history, first), (other, second) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert first.shape == second.shape == (40, 6) and not torch.equal(first, second)
    expected = effective_rank(torch.cat([first, second]), center=True).item()
    assert [row["step"] for row in history] == [3, 4, 6, 8]
    assert history[-1]["effective_rank"] == pytest.approx(expected, rel=1e-5)
    assert history == other
    (written,) = tmp_path.rglob("dimensionality-backbone.csv")  # the first process's alone
    assert len(written.read_text().splitlines()) == 5
    assert len(list(tmp_path.rglob("dimensionality-head.csv"))) == 1
