"""Short trainings of every method on a device: as a library, under Lightning, and through solo-learn."""

from __future__ import annotations

import csv
import importlib
import math
import tempfile
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from solo_dimreg.functional import effective_rank
from solo_dimreg.nn import LDReg
from solo_dimreg.studies.gpu.bench import Step, ViewLoss, small_backbone, step_losses
from solo_dimreg.studies.gpu.rows import CannotRun, Rows, main

STEPS, IMAGES, BATCHES = 16, 48, 4
# The configs without anything of ours, which come last.
PLAIN = ("bn", "byol", "infonce", "simclr", "vicreg")
LIGHTNINGS = ("lightning.pytorch", "pytorch_lightning")


def run_library(rows: Rows, device: torch.device) -> None:
    """Train a timm model with each loss, in a plain loop; the loss must be finite and fall."""
    width = Step(small_backbone(), device, 2, 64).width
    for name, loss in step_losses(width, device).items():
        rows.run(name, partial(_train, loss, device))


def _train(loss: ViewLoss, device: torch.device) -> dict[str, float]:
    step = Step(small_backbone(), device, IMAGES, 64, lr=0.02)
    start = time.perf_counter()
    losses = torch.stack([step(loss) for _ in range(STEPS)]).tolist()
    seconds = time.perf_counter() - start
    assert all(map(math.isfinite, losses)), "the loss is not finite"
    part = STEPS // 4
    first, last = (sum(each) / part for each in (losses[:part], losses[-part:]))
    assert last < first, f"the loss rises from {first:.3f} to {last:.3f}"
    with torch.no_grad():
        rank = float(effective_rank(step.backbone(step.views[0])))
    images = 2 * len(step.views[0]) * STEPS
    return {"first loss": first, "last loss": last, "effective rank": rank, "images/s": images / seconds}


def run_lightning(rows: Rows, device: torch.device) -> None:
    """Train a LightningModule with LDReg in bfloat16, with and without our callback."""
    for with_monitor in (False, True):
        name = "LDReg with DimensionalityMonitor" if with_monitor else "LDReg"
        rows.run(f"{name}, bfloat16", partial(_fit, with_monitor, device))


def _fit(with_monitor: bool, device: torch.device) -> dict[str, Any]:
    found = next((name for name in LIGHTNINGS if find_spec(name.partition(".")[0])), LIGHTNINGS[0])
    lightning: Any = importlib.import_module(found)

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.ReLU(), nn.Linear(64, 32))
            self.projector, self.ldreg = nn.Linear(32, 16), LDReg(k=16)
            self.losses: list[Tensor] = []

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            features = self.backbone(batch[0])
            loss = self.projector(features).square().mean() + 0.01 * self.ldreg([features])
            self.losses.append(loss.detach())
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    callbacks, values = [], {}
    if with_monitor:
        from solo_dimreg import DimensionalityMonitor

        callbacks = [DimensionalityMonitor(features="backbone", embeddings="projector", every_n_epochs=1)]
    images = torch.randn(256, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            max_epochs=2,
            callbacks=callbacks,
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            precision="bf16" if lightning.__version__.startswith("1.") else "bf16-mixed",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        module = Module()
        batches = torch.utils.data.TensorDataset(images)
        trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=64))
    losses = torch.stack(module.losses).tolist()
    assert all(map(math.isfinite, losses)), "the loss is not finite"
    if with_monitor:
        values["effective rank"] = callbacks[0].history[-1]["effective_rank"]
    return {"Lightning": lightning.__version__, "first loss": losses[0], "last loss": losses[-1], **values}


def run_solo_learn(rows: Rows, device: torch.device) -> None:
    """Train each of our configs of the digits some batches long with the solo-learn that is installed."""
    found: list[Any] = []

    def start() -> dict[str, str]:
        from solo_dimreg.datasets.digits import write_digits
        from solo_dimreg.solo_learn import register

        if not find_spec("solo"):
            raise CannotRun("needs solo")
        found.extend([register(), write_digits])
        return {"solo-learn": found[0].generation, "Lightning": found[0].pl.__version__}

    rows.run("registration", start)
    if not found:
        return
    from solo_dimreg.config.folders import find_config_folder

    host, write_digits = found
    half = "16" if host.pl.__version__.startswith("1.") else "16-mixed"
    names = sorted(path.stem for path in find_config_folder("pretrain", "digits").glob("*.yaml"))
    cuda = device.type == "cuda"
    with tempfile.TemporaryDirectory() as folder:
        digits = write_digits(Path(folder, "digits"))
        train = partial(_pretrain, host, Path(folder), digits)
        for name in sorted(names, key=PLAIN.__contains__) if cuda else names[:2]:
            rows.run(name, partial(train, name))
        rows.run(
            f"ldreg_byol, precision {half}", partial(train, "ldreg_byol", f"precision={half}", on_gpu=True)
        )
        dali = partial(train, "ldreg_byol", "data.format=dali", on_gpu=True, needs="nvidia.dali")
        rows.run("ldreg_byol, DALI", dali)


def _pretrain(
    host: Any, folder: Path, digits: Path, name: str, *overrides: str, on_gpu: bool = False, needs: str = ""
) -> dict[str, float]:
    from solo_dimreg.config.composing import compose, fit_to_machine
    from solo_dimreg.training.pretraining import pretrain

    if on_gpu and not torch.cuda.is_available():
        raise CannotRun("needs CUDA")
    if needs and not (find_spec(needs.partition(".")[0]) and find_spec(needs)):
        raise CannotRun(f"needs {needs}")
    runs = tempfile.mkdtemp(dir=folder)
    short = [
        f"data.train_path='{digits / 'train'}'",
        f"data.val_path='{digits / 'val'}'",
        f"checkpoint.dir='{runs}'",
        *("max_epochs=1", "scheduler.warmup_epochs=0"),
        *(f"+limit_train_batches={BATCHES}", "+limit_val_batches=1"),
    ]
    settings = compose("pretrain", "digits", name, [*short, *overrides], host)
    fit_to_machine(settings)
    start = time.perf_counter()
    result = pretrain(settings)
    seconds = time.perf_counter() - start
    assert result is not None
    with (result / "metrics.csv").open(encoding="utf-8") as file:
        logged = {
            name: float(value)
            for row in csv.DictReader(file)
            for name, value in row.items()
            if value and name.startswith("train_") and "loss" in name
        }
    wrong = [name for name, value in logged.items() if not math.isfinite(value)]
    assert logged and not wrong, f"of the logged losses {sorted(logged)}, not finite: {wrong}"
    return {"logged losses": len(logged), "s": seconds}


SECTIONS = {"library": run_library, "lightning": run_lightning, "solo-learn": run_solo_learn}

if __name__ == "__main__":
    main(SECTIONS)
