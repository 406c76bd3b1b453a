"""The monitor on real trainings: what it sees, what it writes, and that it changes nothing."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support import BATCH, METHOD_KWARGS, RandomViews, build, most_slow, small
from torch.utils.data import DataLoader, TensorDataset

from solo_dimreg.config.blocks import AlarmSettings, MonitorSettings, read_blocks
from solo_dimreg.config.loading import load_settings
from solo_dimreg.errors import ConfigError
from solo_dimreg.functional import alignment, effective_rank, lidar, matrix_mutual_information
from solo_dimreg.plugins import monitored_metrics, registered
from solo_dimreg.solo_learn import Host
from solo_dimreg.solo_learn.hooks import outputs_of
from solo_dimreg.solo_learn.registration import generation

PUBLISHED = [m for m in METHOD_KWARGS if m not in ("all4one", "mae", "mocov3", "supcon", "vibcreg")]
METHODS = PUBLISHED if generation() == "published" else list(METHOD_KWARGS)
WITHOUT_PROJECTOR = ("mae",)


@pytest.fixture(autouse=True)
def prepare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch, "cholesky", torch.linalg.cholesky)  # W-MSE of solo-learn 1.0.2
    monkeypatch.chdir(tmp_path)


def fit(host: Host, method: Any, epochs: int = 1, validate: bool = False, **options: Any) -> Any:
    """Trains on noise, three steps an epoch; 20 validation images."""
    train = DataLoader(RandomViews(3 * BATCH, (32, 32)), batch_size=BATCH, drop_last=True)
    images = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    val = DataLoader(TensorDataset(images, torch.arange(20) % 10), batch_size=8) if validate else None
    chosen = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, **options}
    trainer = host.pl.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, enable_model_summary=False, **chosen
    )
    trainer.fit(method, train, val)
    method.trainer = None  # Lightning 1.6 keeps a weak proxy, which state_dict() would trip over
    return trainer


def history(folder: Path) -> list[dict[str, float]]:
    (file,) = folder.rglob("dimensionality.csv")
    assert file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    with file.open() as lines:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(lines)]


@pytest.mark.parametrize("on", ["train", "val"])
@pytest.mark.parametrize("name", most_slow(["simclr", "byol", "directclr", "shuffled_dbn"], keep=["byol"]))
def test_training_is_the_same_to_the_bit(host: Host, few_digits: Path, name: str, on: str) -> None:
    states = []
    for block in ({}, {"monitor": {"on": on}}):
        method = build(small(few_digits, name, **block))
        fit(host, method, validate=True)
        states.append((method.state_dict(), torch.get_rng_state()))
    (plain, plain_random), (watched, watched_random) = states
    assert plain.keys() == watched.keys()
    assert all(torch.equal(plain[key], watched[key]) for key in plain)
    assert torch.equal(plain_random, watched_random)
    assert len(history(Path.cwd())) == 1


@pytest.mark.parametrize("on", ["train", "val"])
@pytest.mark.parametrize(
    "name",
    most_slow([*METHODS, "directclr", "adadim", "shuffled_dbn", "ldreg_byol"], keep=["simclr", "ldreg_byol"]),
)
def test_every_method_can_be_watched(host: Host, few_digits: Path, name: str, on: str) -> None:
    views = ["alignment"] if on == "train" else []
    metrics = ["effective_rank", "off_diagonal_correlation", "mutual_information", *views]
    method = build(small(few_digits, name, monitor={"on": on, "metrics": metrics}))
    trainer = fit(host, method, validate=on == "val")
    (row,) = history(Path.cwd())
    names = ["effective_rank", "off_diagonal_correlation", *views]
    if name not in WITHOUT_PROJECTOR:
        names += [*(f"z_{each}" for each in names), "mutual_information"]
    if (name, generation()) == ("ressl", "published"):  # which projects the first view alone
        names = [each for each in names if each != "z_alignment"]
    assert set(row) == {"epoch", "step", *names}
    for figure in names:
        assert torch.isfinite(torch.tensor(row[figure]))
        logged = float(trainer.callback_metrics[f"dimensionality/{figure}"])
        assert logged == pytest.approx(row[figure], rel=1e-6)
    assert 1 <= row["effective_rank"] <= 3 * BATCH


@pytest.mark.parametrize("samples", [20, 40, 1000])
def test_it_sees_the_first_view_of_the_last_images(host: Host, few_digits: Path, samples: int) -> None:
    method = build(small(few_digits, monitor={"max_samples": samples}))
    seen: dict[str, list[torch.Tensor]] = {"r": [], "z": []}
    host.backbone(method).register_forward_hook(lambda m, i, output: seen["r"].append(output.detach()))
    method.projector.register_forward_hook(lambda m, i, output: seen["z"].append(output.detach()))
    fit(host, method)
    r, z = (torch.cat(outputs[::2])[-samples:] for outputs in seen.values())
    assert len(r) == min(samples, 3 * BATCH)
    (row,) = history(Path.cwd())
    assert row["effective_rank"] == pytest.approx(effective_rank(r, center=True).item(), rel=1e-5)
    assert row["z_effective_rank"] == pytest.approx(effective_rank(z, center=True).item(), rel=1e-5)
    assert row["mutual_information"] == pytest.approx(matrix_mutual_information(r, z).item(), rel=1e-5)
    assert row["lid"] == pytest.approx(registered("metrics")["lid"].value(r).item(), rel=1e-5)


def test_named_layers_are_averaged_over_their_positions(host: Host, few_digits: Path) -> None:
    layers = ["backbone.model.layer3", "projector.0"]
    method = build(small(few_digits, monitor={"layers": layers, "metrics": ["effective_rank", "alignment"]}))
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in layers}
    for name, module in zip(layers, (host.backbone(method).model.layer3, method.projector[0]), strict=True):
        module.register_forward_hook(lambda m, i, output, name=name: seen[name].append(output.detach()))
    trainer = fit(host, method)
    (row,) = history(Path.cwd())
    for name, outputs in seen.items():
        x = torch.cat(outputs[::2])  # of the first view
        rows = x.mean(dim=(2, 3)) if x.dim() == 4 else x
        value = row[f"{name}/effective_rank"]
        assert value == pytest.approx(effective_rank(rows, center=True).item(), rel=1e-5)
        logged = trainer.callback_metrics[f"dimensionality/{name}/effective_rank"]
        assert float(logged) == pytest.approx(value, rel=1e-6)
        assert f"{name}/alignment" not in row


@pytest.mark.parametrize("layers", ["backbone.layer3", [3], [""]])
def test_layers_that_are_no_names_are_refused(layers: Any) -> None:
    with pytest.raises(ConfigError, match=r"monitor\.layers: .*a list of names of modules"):
        read_blocks({"monitor": {"layers": layers}}.get)


@pytest.mark.parametrize("samples", [20, 1000])
def test_figures_of_two_views_are_those_of_the_same_images(
    host: Host, few_digits: Path, samples: int
) -> None:
    metrics = ["alignment", "lidar", "effective_rank"]
    method = build(small(few_digits, monitor={"max_samples": samples, "metrics": metrics}))
    seen: dict[str, list[torch.Tensor]] = {"": [], "z_": []}
    host.backbone(method).register_forward_hook(lambda m, i, output: seen[""].append(output.detach()))
    method.projector.register_forward_hook(lambda m, i, output: seen["z_"].append(output.detach()))
    fit(host, method)
    (row,) = history(Path.cwd())
    for prefix, outputs in seen.items():
        first, second = (torch.cat(outputs[view::2])[-samples:] for view in (0, 1))
        pairs = [row for pair in zip(first, second, strict=True) for row in pair]
        assert row[f"{prefix}alignment"] == pytest.approx(alignment(first, second).item(), rel=1e-5)
        assert row[f"{prefix}lidar"] == pytest.approx(lidar(torch.stack(pairs), 2).item(), rel=1e-4)
        rank = effective_rank(first, center=True).item()
        assert row[f"{prefix}effective_rank"] == pytest.approx(rank, rel=1e-5)


def test_a_single_view_has_no_figures_of_two(host: Host, few_digits: Path) -> None:
    fit(host, build(small(few_digits, monitor={"on": "val"})), validate=True)
    (row,) = history(Path.cwd())
    assert "mean_share" in row and "alignment" not in row


def test_validation_features_are_those_of_the_trained_network(host: Host, few_digits: Path) -> None:
    method = build(small(few_digits, monitor={"on": "val"}))
    fit(host, method, validate=True)
    images = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        r = host.backbone(method.eval())(images)
        z = method.projector(r)
    (row,) = history(Path.cwd())
    assert row["effective_rank"] == pytest.approx(effective_rank(r, center=True).item(), rel=1e-4)
    assert row["z_effective_rank"] == pytest.approx(effective_rank(z, center=True).item(), rel=1e-4)


@pytest.mark.parametrize(("every", "epochs"), [(1, [0, 1, 2, 3, 4]), (2, [1, 3, 4]), (9, [4])])
def test_it_looks_every_n_epochs_and_at_the_last(
    host: Host, few_digits: Path, every: int, epochs: list[int]
) -> None:
    method = build(
        small(few_digits, monitor={"every_n_epochs": every, "metrics": ["effective_rank"]}, max_epochs=5)
    )
    fit(host, method, epochs=5)
    rows = history(Path.cwd())
    assert [row["epoch"] for row in rows] == epochs
    assert len({row["effective_rank"] for row in rows}) == len(epochs)


@pytest.mark.parametrize("on", ["train", "val"])
def test_loggers_get_the_figures_of_each_epoch(host: Host, few_digits: Path, on: str) -> None:
    """Not their mean over the epochs."""
    logger = host.pl.loggers.CSVLogger("logs", name="", version="")
    method = build(small(few_digits, monitor={"on": on, "metrics": ["effective_rank"]}, max_epochs=3))
    fit(host, method, epochs=3, validate=True, logger=logger)
    with Path("logs/metrics.csv").open() as lines:
        logged = [row["dimensionality/effective_rank"] for row in csv.DictReader(lines)]
    expected = [row["effective_rank"] for row in history(Path.cwd())]
    assert [float(value) for value in logged if value] == pytest.approx(expected, rel=1e-6)
    assert len(set(expected)) == 3


def test_an_epoch_that_is_cut_short_is_measured_too(host: Host, few_digits: Path) -> None:
    fit(host, build(small(few_digits, monitor={})), epochs=2, limit_train_batches=2)
    assert [row["step"] for row in history(Path.cwd())] == [2, 4]


def test_the_files_are_whole_during_the_training(host: Host, few_digits: Path) -> None:
    class Reader(host.pl.Callback):  # type: ignore[misc, name-defined]
        lengths: list[int] = []  # noqa: RUF012

        def on_train_epoch_end(self, *_: Any) -> None:
            self.lengths.append(len(history(Path.cwd())))

    fit(host, build(small(few_digits, monitor={}, max_epochs=3)), epochs=3, callbacks=[Reader()])
    assert Reader.lengths == [1, 2, 3]
    assert not list(Path.cwd().rglob(".dimensionality*"))


def test_a_resumed_run_goes_on_with_its_curves(host: Host, few_digits: Path) -> None:
    settings = small(few_digits, monitor={"metrics": ["effective_rank"]}, max_epochs=4)

    def train(epochs: int, folder: str, resume: str | None = None) -> list[dict[str, float]]:
        method, loader = build(settings), DataLoader(RandomViews(3 * BATCH, (32, 32)), BATCH)
        trainer = host.pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            devices=1,
            logger=host.pl.loggers.CSVLogger(folder, name="", version=""),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(method, loader, ckpt_path=resume)
        trainer.save_checkpoint("kept.ckpt")
        return history(Path(folder))

    first = train(2, "first")
    assert torch.load("kept.ckpt", weights_only=True)["callbacks"]["DimensionalityMonitor"]["history"]
    second = train(4, "second", "kept.ckpt")
    assert [row["epoch"] for row in second] == [0, 1, 2, 3]
    assert second[:2] == first


def test_a_metric_that_fails_is_a_warning(
    host: Host, few_digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(features: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such luck")

    known = monitored_metrics()
    broken = {**known, "lid": replace(known["lid"], function=fails)}
    monkeypatch.setattr("solo_dimreg.monitor.buffer.monitored_metrics", lambda: broken)
    method = build(small(few_digits, monitor={"metrics": ["lid", "effective_rank"]}))
    with pytest.warns(UserWarning, match="lid failed .RuntimeError: no such luck"):
        fit(host, method)
    (row,) = history(Path.cwd())
    assert row["effective_rank"] > 1 and row["lid"] != row["lid"]


def test_a_folder_that_cannot_be_written_does_not_end_the_training(host: Host, few_digits: Path) -> None:
    class Spoiler(host.pl.Callback):  # type: ignore[misc, name-defined]
        def on_train_epoch_end(self, *_: Any) -> None:
            (file,) = Path.cwd().rglob("dimensionality.csv")
            if file.is_file():
                file.unlink()
                file.mkdir()

    method = build(small(few_digits, monitor={}, max_epochs=2))
    with pytest.warns(UserWarning, match="monitor: nothing was written"):
        trainer = fit(host, method, epochs=2, callbacks=[Spoiler()])
    assert trainer.global_step == 6


def test_a_projector_that_the_training_does_not_use(host: Host, few_digits: Path) -> None:
    """No embeddings were seen, and the validation does not stand in for the training."""
    method = build(small(few_digits, monitor={"metrics": ["effective_rank"]}))
    monitor = method.configure_callbacks()[-1]
    method.unused, monitor.names["embeddings"] = torch.nn.Identity(), "unused"
    method.configure_callbacks = lambda: [monitor]

    with pytest.warns(UserWarning, match="training never called embeddings='unused'"):
        fit(host, method, validate=True)
    (row,) = history(Path.cwd())
    assert set(row) == {"epoch", "step", "effective_rank"}


def test_wandb_gets_the_spectrum(host: Host, few_digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = host.pl.loggers.WandbLogger(project="test", offline=True, save_dir=str(Path.cwd()))
    fit(host, build(small(few_digits, monitor={})), logger=logger)
    logged = dict(logger.experiment.summary)
    logger.experiment.finish()
    assert logged["dimensionality/effective_rank"] > 1
    tables = [json.loads(file.read_text()) for file in Path.cwd().rglob("*.table.json")]
    assert any({"features", "embeddings"} <= {str(cell) for row in t["data"] for cell in row} for t in tables)
    assert not list(Path.cwd().rglob("dimensionality.csv"))  # wandb has it


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (
            {"every_n_epoch": 2},
            r"monitor.every_n_epoch: unknown key .value 2.. Did you mean 'every_n_epochs'",
        ),
        ({"every_n_epochs": 0}, r"monitor.every_n_epochs: 0 is not allowed; .*whole number >= 1"),
        ({"every_n_epochs": True}, r"monitor.every_n_epochs: True is not allowed"),
        ({"every_n_epochs": None}, r"monitor.every_n_epochs: None is allowed only with every_n_steps"),
        ({"every_n_steps": 0}, r"monitor.every_n_steps: 0 is not allowed; .*whole number >= 1"),
        ({"every_n_steps": 2.5}, r"monitor.every_n_steps: 2.5 is not allowed"),
        ({"enabled": "no"}, r"monitor.enabled: 'no' is not allowed; it must be true or false"),
        ({"enabled": False, "every_n_epoch": 2}, r"monitor.every_n_epoch: unknown key"),
        ({"max_samples": 2.5}, r"monitor.max_samples: 2.5 is not allowed"),
        ({"on": "test"}, r"monitor.on: Unknown place 'test'.*train, val"),
        ({"metrics": ["lidd"]}, r"monitor.metrics: Unknown metric 'lidd'. Did you mean 'lid'"),
        ({"metrics": "lid"}, r"monitor.metrics: 'lid' is not allowed; it must be a list"),
        ({"metrics": []}, r"monitor.metrics: \[\] is not allowed"),
        (
            {"metrics": ["lidar"], "on": "val"},
            r"monitor.metrics: 'lidar' needs two views, which only on: train",
        ),
        ([1], r"monitor: \[1\] is not a mapping"),
    ],
)
def test_wrong_blocks_are_refused_when_the_method_is_built(
    few_digits: Path, block: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build(small(few_digits, monitor=block))


def read_monitor(block: Any) -> MonitorSettings | None:
    return read_blocks({"monitor": block}.get).monitor


def test_the_key_on_survives_yaml_and_json() -> None:
    assert read_monitor({True: "val"}) == MonitorSettings(on="val")
    assert read_monitor(json.loads(json.dumps({True: "val"}))) == MonitorSettings(on="val")
    assert read_monitor({}) == MonitorSettings()
    assert read_monitor(None) is None


def test_what_switches_it_off_and_how_often_it_measures() -> None:
    for block in (None, False, {"enabled": False}, {"enabled": False, "on": "val", "alarm": {}}):
        assert read_monitor(block) is None
    assert read_monitor({"enabled": True}) == MonitorSettings()
    for alarm in (None, False, {"enabled": False}, {"enabled": False, "patience": 1}):
        assert read_monitor({"alarm": alarm}) == MonitorSettings()
    assert read_monitor({"alarm": {"enabled": True}}).alarm == AlarmSettings()  # type: ignore[union-attr]
    words = {
        "every epoch": {},
        "every 3 epochs and at the end": {"every_n_epochs": 3},
        "every 50 steps and at the end": {"every_n_steps": 50},
        "every epoch and every step and at the end": {"every_n_steps": 1, "every_n_epochs": 1},
        "every step and at the end": {"every_n_steps": 1, "every_n_epochs": None},
    }
    assert [read_monitor(block).how_often() for block in words.values()] == list(words)  # type: ignore[union-attr]


@pytest.mark.parametrize("block", [None, False, {"enabled": False}])
def test_switched_off_it_leaves_no_trace(host: Host, few_digits: Path, block: Any) -> None:
    settings = small(few_digits, monitor={"every_n_epochs": 1})
    settings.monitor = block if not isinstance(block, dict) else {**settings.monitor, **block}
    load_settings(host, settings, images=False)
    method = build(settings)
    assert not any(type(each).__name__ == "DimensionalityMonitor" for each in method.configure_callbacks())


def test_the_regularizer_of_embeddings_sees_them_before_an_operation_in_place() -> None:
    projector = torch.nn.Linear(4, 3)
    x = torch.randn(5, 4)
    with outputs_of(projector) as collected:
        torch.nn.functional.relu_(projector(x))
    assert torch.equal(collected[0], projector(x))
    (gradient,) = torch.autograd.grad(collected[0].pow(2).sum(), projector.weight)
    torch.testing.assert_close(gradient, 2 * projector(x).detach().T @ x)


def test_val_without_validation_images_is_refused(host: Host, few_digits: Path) -> None:
    with pytest.raises(ConfigError, match=r"monitor.on: 'val' needs validation images"):
        fit(host, build(small(few_digits, monitor={"on": "val"})))


def test_the_lids_that_ldreg_tracks_are_metrics_by_name() -> None:
    metrics = {name: registered("metrics")[name].value for name in ("lid_mle", "lid_mle_512")}
    x = torch.randn(1024, 6, generator=torch.Generator().manual_seed(0))
    distances = torch.cdist(x.double(), x.double()).sort(dim=1).values[:, 1:]
    for name, k in (("lid_mle", 32), ("lid_mle_512", 512)):
        near = distances[:, :k]
        expected = (-1 / (near / near[:, -1:]).log().mean(dim=1)).log().mean().exp()
        assert metrics[name](x).item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.isnan(metrics["lid_mle_512"](x[:512])) and torch.isfinite(metrics["lid_mle"](x[:512]))
