"""The callback on modules that ``torch.compile`` has compiled: nothing is compiled again for it."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from support import most_slow
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.utils.data import DataLoader, TensorDataset

from solo_dimreg import DimensionalityMonitor, diagnose
from solo_dimreg.functional import effective_rank
from solo_dimreg.monitor.lightning import LIGHTNINGS

INSTALLED = [name for name in LIGHTNINGS if importlib.util.find_spec(name.partition(".")[0])]
EPOCHS, STEPS, ROWS = 3, 10, 8


def rows() -> Tensor:
    return torch.randn(STEPS * ROWS, 10, generator=torch.Generator().manual_seed(0))


def train(pl: Any, backend: str, whole: bool, monitors: list[Any]) -> tuple[Any, dict[str, int]]:
    """A training with one compiled network, or a compiled part of it; returns dynamo's counts, too."""

    def compiled(part: nn.Module) -> Any:
        return torch.compile(part, backend=backend, fullgraph=True)

    class Model(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            encoder = nn.Sequential(nn.Linear(10, 6), nn.ReLU(inplace=True), nn.Linear(6, 5))
            head = nn.Linear(5, 4)
            self.network = nn.Sequential(encoder if whole else compiled(encoder), head)
            if whole:
                self.network = compiled(self.network)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            views = [batch[0], batch[0].flip(-1)]
            return sum(self.network(view).pow(2).mean() for view in views)  # type: ignore[return-value]

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.05)

    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(0)
    model = Model()
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=monitors,
    )
    trainer.fit(model, DataLoader(TensorDataset(rows()), batch_size=ROWS))
    assert trainer.global_step == EPOCHS * STEPS
    return model, {**counters["stats"], "again": sum(counters["recompiles"].values())}


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("backend", most_slow(["eager", "aot_eager"], keep=["aot_eager"]))
@pytest.mark.parametrize("name", INSTALLED)
def test_each_step_runs_the_same_compiled_code(
    name: str, backend: str, whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pl = importlib.import_module(name)
    plain, before = train(pl, backend, whole, [])
    # The outputs of the first layer, which the next one changes in place, inside the compiled code, and of
    # what is compiled.
    metrics = ["effective_rank", "alignment"]
    inner = DimensionalityMonitor(features="network.0.0", metrics=metrics, every_n_epochs=2, max_samples=24)
    outer = DimensionalityMonitor(
        features="network.0", embeddings="network", metrics=metrics, every_n_steps=7
    )
    model, after = train(pl, backend, whole, [inner, outer])
    assert before["unique_graphs"] == after["unique_graphs"] == 1 and not after["again"]
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), model.parameters(), strict=True))
    assert [row["step"] for row in inner.history] == [20, 30]
    assert [row["step"] for row in outer.history] == [7, 14, 21, 28, 30]
    assert all("alignment" in row for row in inner.history)
    assert all("z_effective_rank" in row for row in outer.history)


@pytest.mark.parametrize("name", INSTALLED)
def test_the_last_rows_before_an_operation_in_place(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an uncompiled training with the operation out of place has them."""
    monkeypatch.chdir(tmp_path)
    pl = importlib.import_module(name)
    found = []
    for backend in ("eager", "aot_eager"):
        monitor = DimensionalityMonitor(features="network.0.0", metrics=["effective_rank"], max_samples=ROWS)
        train(pl, backend, True, [monitor])
        found.append(monitor.history)
    seen: list[Tensor] = []

    class Uncompiled(pl.Callback):
        def on_fit_start(self, trainer: Any, module: Any) -> None:
            encoder = module.network._orig_mod[0]
            encoder[1] = nn.ReLU()
            encoder[0].register_forward_hook(lambda m, i, output: seen.append(output.detach()))

    torch._dynamo.reset()
    with torch.compiler.set_stance("force_eager"):
        train(pl, "eager", True, [Uncompiled()])
    expected = effective_rank(seen[-2], center=True).item()  # the first view
    assert [history[-1]["effective_rank"] for history in found] == pytest.approx([expected] * 2, rel=1e-4)


def test_diagnose_sees_the_output_of_the_layer_itself() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(10, 6), nn.ReLU(inplace=True), nn.Linear(6, 3))
    x = torch.randn(200, 10)
    found = diagnose(model, DataLoader(TensorDataset(x), batch_size=50), features="1")
    direct = diagnose(model[1](x).detach())
    assert found.effective_rank == pytest.approx(direct.effective_rank, rel=1e-6)
