"""The callback on a LightningModule of a reader's own, with each Lightning that is installed."""

from __future__ import annotations

import copy
import csv
import importlib
import importlib.util
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support import needs_model_checkpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from solo_dimreg import DimensionalityMonitor
from solo_dimreg.errors import ConfigError
from solo_dimreg.functional import directclr_loss, effective_rank, matrix_mutual_information
from solo_dimreg.monitor.lightning import LIGHTNINGS

INSTALLED = [name for name in LIGHTNINGS if importlib.util.find_spec(name.partition(".")[0])]


@pytest.fixture(params=INSTALLED)
def pl(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    return importlib.import_module(request.param)


def images(count: int, seed: int = 0) -> TensorDataset:
    return TensorDataset(torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed)))


def build(pl: Any) -> Any:
    class Contrast(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
            self.projector = nn.Linear(12, 6)

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            views = [batch[0], batch[0].flip(-1)]
            embeddings = [self.projector(self.backbone(view).flatten(1)) for view in views]
            return directclr_loss(*embeddings, dim=6)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("length", self.backbone(batch[0]).norm())

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.5)

    torch.manual_seed(0)
    return Contrast()


def fit(pl: Any, module: Any, *monitors: Any, epochs: int = 2, validate: bool = False, **options: Any) -> Any:
    chosen = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, **options}
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        enable_model_summary=False,
        callbacks=list(monitors),
        **chosen,
    )
    val = DataLoader(images(40, seed=1), batch_size=20) if validate else None
    trainer.fit(module, DataLoader(images(96), batch_size=32), val)
    return trainer


def rows(folder: Path) -> list[dict[str, float]]:
    (file,) = folder.rglob("dimensionality.csv")
    assert file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    with file.open() as lines:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(lines)]


def test_it_watches_a_training_and_changes_nothing(pl: Any) -> None:
    monitor = DimensionalityMonitor(features="backbone", embeddings="projector", max_samples=50)
    assert isinstance(monitor, pl.Callback) and isinstance(monitor, DimensionalityMonitor)
    plain, module = build(pl), build(pl)
    fit(pl, plain)
    seen: dict[str, list[torch.Tensor]] = {"backbone": [], "projector": []}
    for name, outputs in seen.items():
        module.get_submodule(name).register_forward_hook(
            lambda m, i, out, outputs=outputs: outputs.append(out)
        )
    logger = importlib.import_module(f"{pl.__name__}.loggers").CSVLogger("logs", name="", version="")
    trainer = fit(pl, module, monitor, logger=logger)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), module.parameters(), strict=True))

    # Of the last 50 images of the last epoch, the first view.
    r, z = (torch.cat(outputs[::2])[-50:].flatten(1).detach() for outputs in seen.values())
    row = monitor.history[1]
    assert row["effective_rank"] == pytest.approx(effective_rank(r, center=True).item(), rel=1e-5)
    assert row["z_effective_rank"] == pytest.approx(effective_rank(z, center=True).item(), rel=1e-5)
    assert row["mutual_information"] == pytest.approx(matrix_mutual_information(r, z).item(), rel=1e-5)
    logged = float(trainer.callback_metrics["dimensionality/effective_rank"])
    assert logged == pytest.approx(row["effective_rank"], rel=1e-6)
    assert rows(Path("logs")) == monitor.history and [row["epoch"] for row in monitor.history] == [0, 1]
    assert len(module.backbone._forward_hooks) == 1  # the test's

    module.trainer = None
    trainer.save_checkpoint("kept.ckpt")
    kept = torch.load("kept.ckpt", weights_only=True)["callbacks"][monitor.state_key]
    assert kept["history"] == monitor.history


def test_it_watches_a_validation(pl: Any) -> None:
    monitor = DimensionalityMonitor(on="val", every_n_epochs=2, metrics=["effective_rank"])
    module = build(pl)
    trainer = fit(pl, module, monitor, epochs=3, validate=True)
    with torch.no_grad():
        r = module.eval().backbone(images(40, seed=1).tensors[0]).flatten(1)
    assert [row["epoch"] for row in rows(Path.cwd())] == [1, 2]
    assert monitor.history[-1]["effective_rank"] == pytest.approx(
        effective_rank(r, center=True).item(), rel=1e-4
    )
    trainer.validate(module, DataLoader(images(40, seed=1), batch_size=20), verbose=False)
    assert len(monitor.history) == 2  # after the training it looks at nothing


def test_a_module_that_is_never_called_is_told_of(pl: Any) -> None:
    monitor = DimensionalityMonitor("backbone", "projector", on="val", metrics=["effective_rank"])
    with pytest.warns(UserWarning, match="validation never called embeddings='projector'"):
        fit(pl, build(pl), monitor, validate=True)
    assert [set(row) for row in monitor.history] == [{"epoch", "step", "effective_rank"}] * 2


def test_of_a_module_that_is_called_again_the_views_are_asked_for(pl: Any) -> None:
    """Two calls may be on other images; that of gradient checkpointing in the backward pass is no view."""
    usual = DimensionalityMonitor()
    fit(pl, build(pl), usual, epochs=1)
    assert "lid" in usual.history[0] and "alignment" not in usual.history[0]
    module = build(pl)

    def step(batch: Any, batch_idx: int) -> torch.Tensor:
        x = batch[0].requires_grad_()
        return torch.utils.checkpoint.checkpoint(module.backbone, x, use_reentrant=True).pow(2).mean()

    module.training_step = step
    asked = DimensionalityMonitor(metrics=["alignment", "effective_rank"], alarm={"metric": "lidar"})
    with pytest.warns(UserWarning, match="the steps have no lidar, so it does not see it fall"):
        fit(pl, module, asked, epochs=1)
    assert set(asked.history[0]) == {"epoch", "step", "effective_rank"}


def test_an_alarm_keeps_what_a_model_checkpoint_would_remove(pl: Any, capsys: Any) -> None:
    needs_model_checkpoint(pl)
    save = importlib.import_module(f"{pl.__name__}.callbacks").ModelCheckpoint("kept")
    alarm = {"metric": "effective_rank", "drawdown": 0.01, "patience": 3, "action": "stop"}
    monitor = DimensionalityMonitor(metrics=["effective_rank"], alarm=alarm)
    fit(pl, build(pl), monitor, save, epochs=8, enable_checkpointing=True)
    first, last = sorted(path.name for path in Path("kept").iterdir())
    assert first.startswith("epoch=0-") and first.endswith(".ckpt.good") and last.startswith("epoch=3-")
    assert re.search(rf"the last good checkpoint is \S*{re.escape(first)}", capsys.readouterr().err)


def test_an_alarm_stops_the_training(pl: Any, capsys: Any) -> None:
    """As Lightning's own callbacks do; the rank of this training falls from the first epoch on."""
    alarm = {"metric": "effective_rank", "drawdown": 0.01, "patience": 1, "action": "stop"}
    monitor = DimensionalityMonitor(metrics=["effective_rank"], alarm=alarm)
    trainer = fit(pl, build(pl), monitor, epochs=5)
    assert trainer.should_stop and trainer.global_step == 6
    assert [row["epoch"] for row in monitor.history] == [0, 1]
    (line,) = re.findall("warning: Contrast may have collapsed.*", capsys.readouterr().err)
    first, second = (f"{row['effective_rank']:.3g}" for row in monitor.history)
    assert (
        f"effective_rank is {second} and was {first} (a fall of 1% or more); it has looked so, since" in line
    )
    assert "since epoch 2 (step 6);" in line and line.endswith("The training is stopped.")


@pytest.mark.parametrize("near", ["point", "line"])
def test_an_alarm_sees_embeddings_near_a_point_or_a_line(pl: Any, near: str, capsys: Any) -> None:
    """Their effective rank, relative to the variance, does not fall."""

    def trained(**alarm: Any) -> DimensionalityMonitor:
        module = build(pl)
        with torch.no_grad():
            if near == "point":
                module.projector.bias += 10
            else:
                module.projector.weight[:] = module.projector.weight[0]
                module.projector.bias[:] = 0
        module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=1e-6)
        monitor = DimensionalityMonitor(embeddings="projector", alarm={"action": "stop", **alarm})
        fit(pl, module, monitor, epochs=5)
        return monitor

    assert len(trained().history) == 3
    metric = {"point": "z_mean_share", "line": "z_off_diagonal_correlation"}[near]
    (line,) = re.findall("warning: Contrast may have collapsed.*", capsys.readouterr().err)
    assert f" {metric} is 1 (the limit is 0.97); it has looked so for 3 looks in a row, since epoch 1" in line
    assert len(trained(limits={}).history) == 5


def test_a_limit_of_embeddings_needs_them(pl: Any) -> None:
    monitor = DimensionalityMonitor(alarm={"limits": {"z_mean_share": 0.9}})
    with pytest.raises(ConfigError, match=r"alarm.limits.z_mean_share: .* no projector.* leave it out"):
        fit(pl, build(pl), monitor)
    fit(pl, build(pl), DimensionalityMonitor(alarm={}), epochs=1)  # the usual limits are then not watched


def test_a_logger_without_a_folder(pl: Any) -> None:
    base = importlib.import_module(f"{pl.__name__}.loggers")

    class Nowhere(base.CSVLogger):
        save_dir = log_dir = None
        experiment = None

        def __init__(self) -> None:
            base.logger.Logger.__init__(self) if hasattr(base, "logger") else None

        name, version = "nowhere", 0
        log_metrics = log_hyperparams = save = finalize = log_graph = lambda self, *_, **__: None

    monitor = DimensionalityMonitor(metrics=["effective_rank"])
    fit(pl, build(pl), monitor, logger=Nowhere(), default_root_dir="root")
    assert rows(Path("root")) == monitor.history


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"features": "bakbone"},
            r"features: 'bakbone' is not a module of Contrast. Did you mean 'backbone'\?",
        ),
        (
            {"embeddings": "projector.1"},
            "embeddings: 'projector.1' is not a module of Contrast. Did you mean",
        ),
        (
            {"features": "backbone.0"},
            r"features \(backbone.0\): returns shape \(32, 12, 6, 6\).*pools them",
        ),
        ({"on": "val"}, "on: 'val' needs a validation loader"),
    ],
)
def test_what_cannot_be_watched_is_refused_before_the_first_step(
    pl: Any, options: dict[str, Any], words: str
) -> None:
    module = build(pl)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ConfigError, match=words):
        fit(pl, module, DimensionalityMonitor(**options))
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert not module.backbone._forward_hooks and not module.projector._forward_hooks


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every_n_epoch": 2}, "monitor.every_n_epoch: unknown key.*Did you mean 'every_n_epochs'"),
        ({"metrics": ["lidd"]}, "Unknown metric 'lidd'. Did you mean 'lid'"),
        ({"max_samples": 0}, "max_samples: 0 is not allowed"),
    ],
)
def test_wrong_settings_are_refused_at_once(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        DimensionalityMonitor(**options)


def test_spawned_processes_get_it_and_it_can_be_subclassed(pl: Any) -> None:
    monitor = DimensionalityMonitor(embeddings="projector", max_samples=7)
    for other in (pickle.loads(pickle.dumps(monitor)), copy.deepcopy(monitor)):
        assert type(other) is type(monitor) and other.settings == monitor.settings
        assert other.names == monitor.names

    class Mine(DimensionalityMonitor, pl.Callback):
        pass

    assert isinstance(Mine("projector"), Mine) and Mine("projector").names["features"] == "projector"


WITHOUT = """
import sys
for name in ("lightning", "pytorch_lightning", "torchmetrics"):
    sys.modules[name] = None
from solo_dimreg import DimensionalityMonitor, metrics
for use in (lambda: DimensionalityMonitor("backbone"), lambda: metrics.RankMe):
    try:
        use()
    except ImportError as error:
        print(type(error).__name__, error)
"""


def test_without_lightning_and_torchmetrics_the_errors_say_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.startswith(
        "MissingPackageError DimensionalityMonitor needs Lightning: pip install 'solo-dimreg[lightning]'"
    )
    assert second.startswith("MissingPackageError") and "pip install 'solo-dimreg[torchmetrics]'" in second
