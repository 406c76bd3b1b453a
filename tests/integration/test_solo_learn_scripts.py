"""The current solo-learn's own scripts, unmodified, with the add-on installed."""

from __future__ import annotations

import csv
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from support import config, most_slow

from solo_dimreg.solo_learn.scripts import _Script

pytestmark = pytest.mark.skipif(
    not os.environ.get("SOLO_LEARN"), reason="needs SOLO_LEARN=<clone of github.com/vturrisi/solo-learn>"
)
ON_CPU = ("accelerator=cpu", "strategy=auto", "precision=32", "sync_batchnorm=False", "wandb.enabled=False")
BLOCK = "\nregularizers:\n  ldreg: {weight: 0.01, k: 8, warmup_epochs: 0}\nmonitor: {on: train}\n"


def script(clone: Path, name: str, folder: Path, config: str, cwd: Path, *overrides: str) -> str:
    command = [sys.executable, str(clone / name), "--config-path", str(folder), "--config-name", config]
    run = subprocess.run([*command, *ON_CPU, *overrides], cwd=cwd, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-5000:]
    return run.stdout + run.stderr


def on_digits(few_digits: Path, devices: int = 1) -> tuple[str, ...]:
    data = ("data.dataset=custom", f"data.train_path={few_digits / 'train'}", "data.num_workers=0")
    short = ("max_epochs=1", "optimizer.batch_size=32", "auto_resume.enabled=False")
    return (*data, *short, "data.format=image_folder", f'devices="{devices}"')


def test_our_command_runs_a_script_without_the_warnings_of_its_imports(
    solo_learn_clone: Path, tmp_path: Path
) -> None:
    folder = solo_learn_clone / "scripts" / "pretrain" / "cifar"
    command = [sys.executable, "-m", "solo_dimreg", "run", str(solo_learn_clone / "main_pretrain.py")]
    wrong = ["--config-path", str(folder), "--config-name", "ldreg_simclr", "max_epochs=-1", *ON_CPU]
    run = subprocess.run([*command, *wrong], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 2 and run.stderr.startswith("error: max_epochs: "), run.stderr
    assert len(run.stderr.splitlines()) == 1


def run_folder(cwd: Path, method: str) -> Path:
    (arguments,) = (cwd / "trained_models" / method).rglob("args.json")
    return arguments.parent


def watched(run: Path) -> dict[str, float]:
    """The one row of figures that the monitor left beside the checkpoint."""
    with (run / "dimensionality.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (run / "dimensionality.png").read_bytes().startswith(b"\x89PNG")
    return {name: float(value) for name, value in row.items()}


def test_our_config_beside_solo_learns_and_its_linear_evaluation(
    solo_learn_clone: Path, few_digits: Path, tmp_path: Path
) -> None:
    folder = solo_learn_clone / "scripts" / "pretrain" / "cifar"
    assert not (folder / "ldreg_simclr.yaml").exists()
    # At the one resolution at which main_linear.py evaluates images of one's own.
    overrides = (f"data.val_path={few_digits / 'val'}", "augmentations.0.crop_size=224")
    overrides += ("backbone.name=timm/test_resnet", "regularizers.ldreg.warmup_epochs=0")
    overrides += ("divergence.patience=7",)  # without a +, although the config has no such block
    overrides += on_digits(few_digits)
    printed = script(solo_learn_clone, "main_pretrain.py", folder, "ldreg_simclr", tmp_path, *overrides)
    assert "LDRegSimCLR: ldreg of the features, weight 0.01, k = 16; monitor every epoch, to " in printed
    run = run_folder(tmp_path, "ldreg_simclr")
    arguments = json.loads((run / "args.json").read_text())
    assert arguments["regularizers"]["ldreg"]["warmup_epochs"] == 0
    assert arguments["divergence"] == {"patience": 7}
    record = json.loads((run / "run.json").read_text())
    assert record["steps"] == 3 and record["data"]["train_images"] == 120
    assert record["environment"]["solo-learn"] == "current"
    rank = watched(run)["effective_rank"]
    assert 1 < rank < 96
    assert f"trained 1 epoch, 3 steps; effective rank of the features {rank:.1f}, measured once" in printed
    (metrics,) = (tmp_path / "lightning_logs").rglob("metrics.csv")
    assert "train_ldreg_epoch" in metrics.read_text().splitlines()[0]

    assert "solo-dimreg: Evaluate it with:\n  solo-dimreg linear " in printed
    said = next(line for line in printed.splitlines() if "main_linear.py" in line)
    command = shlex.split(said, comments=True)
    assert command[:2] == ["python", "main_linear.py"]
    command[:2] = [sys.executable, str(solo_learn_clone / "main_linear.py")]
    linear = subprocess.run([*command, "max_epochs=1"], cwd=tmp_path, capture_output=True, text=True)
    assert linear.returncode == 0, linear.stderr
    assert re.search(r"solo-dimreg: linear probe: top-1 \d+\.\d\d % on the validation", linear.stderr)
    columns = [
        path.read_text().splitlines()[0] for path in (tmp_path / "lightning_logs").rglob("metrics.csv")
    ]
    assert any("val_acc1" in header for header in columns)

    # main_knn.py moves the images to a GPU, whatever there is.
    command = [sys.executable, "-m", "solo_dimreg", "run", str(solo_learn_clone / "main_knn.py")]
    command += ["--pretrained_checkpoint_dir", str(run), "--dataset", "custom", "--k", "5"]
    command += ["--train_data_path", str(few_digits / "train"), "--val_data_path", str(few_digits / "val")]
    command += ["--temperature", "0.07", "--distance_function", "cosine", "--feature_type", "backbone"]
    knn = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    if torch.cuda.is_available():
        assert knn.returncode == 0 and "Result: acc@1=" in knn.stdout, knn.stderr
    else:
        assert knn.returncode == 2 and "use solo-dimreg knn" in knn.stderr, knn.stderr


@pytest.mark.slow
def test_a_config_of_ours_by_its_name(solo_learn_clone: Path, few_digits: Path, tmp_path: Path) -> None:
    # A folder that no clone has, relative as in the README.
    arguments = ("data.val_path=null", *on_digits(few_digits), "+limit_train_batches=1")
    script(solo_learn_clone, "main_pretrain.py", Path("digits"), "ldreg_simclr", tmp_path, *arguments)
    assert run_folder(tmp_path, "ldreg_simclr")


@pytest.mark.slow
def test_a_damaged_checkpoint_is_not_resumed(
    solo_learn_clone: Path, few_digits: Path, tmp_path: Path
) -> None:
    arguments = ("data.val_path=null", *on_digits(few_digits), "+limit_train_batches=1")
    run = (solo_learn_clone, "main_pretrain.py", Path("digits"), "simclr", tmp_path, *arguments)
    script(*run)
    (damaged,) = (tmp_path / "trained_models").rglob("*.ckpt")
    damaged.write_bytes(damaged.read_bytes()[:5000])
    printed = script(*run, "auto_resume.enabled=True")
    assert re.search(r"Not resuming from .*\.ckpt: is not an intact checkpoint", printed)
    assert len(list((tmp_path / "trained_models").rglob("*.ckpt"))) == 2  # it has begun anew
    given = str(damaged).replace("=", r"\=")
    with pytest.raises(
        AssertionError, match=r"error: resume_from_checkpoint: .* is not an intact checkpoint"
    ):
        script(*run, f"++resume_from_checkpoint={given}")


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="without a GPU only a config for GPUs is fitted")
def test_a_run_is_prolonged_on_a_cpu_and_without_foreign_warnings(
    solo_learn_clone: Path, few_digits: Path, tmp_path: Path
) -> None:
    """``accelerator=cpu`` alone is enough; both ways of going on end at the new length, with a rate of 0."""
    command = [sys.executable, str(solo_learn_clone / "main_pretrain.py"), "--config-path", "digits"]
    data = [f"data.train_path={few_digits / 'train'}", "data.val_path=null", "data.num_workers=0"]
    command += ["--config-name", "ldreg_byol", "accelerator=cpu", "backbone.name=timm/test_resnet", *data]
    command += ["regularizers.ldreg.warmup_epochs=0", "optimizer.batch_size=40", "scheduler.warmup_epochs=1"]

    def train(epochs: int, *more: str) -> tuple[list[str], Path]:
        run = subprocess.run(
            [*command, f"max_epochs={epochs}", *more], cwd=tmp_path, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr[-5000:]
        lines = run.stderr.splitlines()
        ours = next(n for n, line in enumerate(lines) if line.startswith(("warning: ", "solo-dimreg: ")))
        assert not [line for line in lines[ours:] if "Warning" in line or "does not have many" in line]
        found = (tmp_path / "trained_models").rglob(f"*ep={epochs - 1}.ckpt")
        return [line for line in lines if "resumed after" in line], max(
            found, key=lambda path: path.stat().st_ctime
        )

    said, first = train(2, "auto_resume.enabled=False")
    assert not said
    given = str(first).replace("=", r"\=")
    for more in (("auto_resume.enabled=True",), (f"++resume_from_checkpoint={given}",)):
        (line,), last = train(3, *more)
        assert "resumed after epoch 2 of 2, now of 3: from step 6 of 9 on" in line
        (schedule,) = torch.load(last, weights_only=True)["lr_schedulers"]
        assert (schedule["max_epochs"], schedule["last_epoch"]) == (9, 9)
        assert schedule["_last_lr"][0] == pytest.approx(0, abs=1e-9)
        last.unlink()


def test_a_block_in_solo_learns_own_config(solo_learn_clone: Path, few_digits: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(solo_learn_clone / "scripts" / "pretrain" / "cifar", tmp_path / "mine")
    with (folder / "byol.yaml").open("a") as config:
        config.write(BLOCK)
    overrides = ("data.val_path=null", *on_digits(few_digits))
    script(solo_learn_clone, "main_pretrain.py", folder, "byol", tmp_path, *overrides)
    (metrics,) = (tmp_path / "lightning_logs").rglob("metrics.csv")
    header, *_, last = metrics.read_text().splitlines()
    assert "train_ldreg_epoch" in header
    assert float(last.split(",")[header.split(",").index("train_ldreg_epoch")]) < 0
    assert 1 < watched(run_folder(tmp_path, "byol"))["z_effective_rank"] < 96


@pytest.mark.slow
def test_child_processes_of_ddp_register_too(
    solo_learn_clone: Path, few_digits: Path, tmp_path: Path
) -> None:
    folder = solo_learn_clone / "scripts" / "pretrain" / "cifar"
    overrides = ("data.val_path=null", *on_digits(few_digits, devices=2), "strategy=ddp")
    overrides += ("regularizers.ldreg.warmup_epochs=0",)
    script(solo_learn_clone, "main_pretrain.py", folder, "ldreg_simclr", tmp_path, *overrides)
    run = run_folder(tmp_path, "ldreg_simclr")
    (checkpoint,) = run.glob("*.ckpt")
    # More than the rank that the 32 images of one process can have.
    assert 32 < watched(run)["effective_rank"] < 64
    # 120 images in batches of 32 are three steps of one process and one of two processes.
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 1


@pytest.mark.slow
def test_a_sweep_over_seeds_side_by_side(solo_learn_clone: Path, few_digits: Path, tmp_path: Path) -> None:
    """The workers of joblib's launcher are handed the task and have to know our methods."""
    sweep = ("--multirun", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "+seed=1,2")
    settings = ("data.val_path=null", *on_digits(few_digits), "+limit_train_batches=1")
    command = [sys.executable, str(solo_learn_clone / "main_pretrain.py"), "--config-path", "digits"]
    command += ["--config-name", "ldreg_simclr", *sweep, *ON_CPU, *settings]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    arguments = tmp_path.glob("trained_models/ldreg_simclr/*/args.json")
    assert sorted(json.loads(file.read_text())["seed"] for file in arguments) == [1, 2]


@pytest.fixture
def pretrain_here(
    solo_learn_clone: Path,
    few_digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> Any:
    """Runs main_pretrain.py in this process, in an empty folder; returns its status and what it said."""

    def run(changes: dict[str, Any], script: str = "main_pretrain.py") -> tuple[int, list[str]]:
        settings = config("simclr", str(few_digits / "train"), optimizer={
            "name": "sgd", "batch_size": 32, "lr": 0.1, "classifier_lr": 0.1, "weight_decay": 0.0,
        }, wandb={"enabled": False})  # fmt: skip
        for key, value in changes.items():
            OmegaConf.update(settings, key, value, force_add=True, merge=False)
        folder = tmp_path / "configs"
        folder.mkdir(exist_ok=True)
        head = (
            "defaults: [_self_, override hydra/hydra_logging: disabled, override hydra/job_logging: disabled]"
        )
        body = OmegaConf.to_yaml({**settings, "hydra": {"output_subdir": None, "run": {"dir": "."}}})
        (folder / "case.yaml").write_text(f"{head}\n{body}")
        path = str(solo_learn_clone / script)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [path, "--config-path", str(folder), "--config-name", "case"])
        for name in ("watched", "uses_add_on"):  # of this process, which runs other tests too
            monkeypatch.setattr(_Script, name, False)
        status: Any = 0
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the imports, where no other test has made them
                runpy.run_path(path, run_name="__main__")
        except SystemExit as exit_:
            status = exit_.code
        return status, capfd.readouterr().err.splitlines()

    return run


# Found where the data is loaded or the network is built: after a warning or two of solo-learn's.
TRAINED = "solo-learn cannot train this config (AssertionError: Input height (32) doesn't match model (224)"
BUILT = (TRAINED, "optimizer.batch_size", "projector.num_groups")
MONITOR = {"monitor": {"on": "train"}}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({**MONITOR, "optimizer.lrr": 1}, "optimizer.lrr"),
    ({**MONITOR, "data.foo": 1}, "data.foo"),
    ({**MONITOR, "max_epochs": 0}, "max_epochs"),
    ({**MONITOR, "seed": "a"}, "seed"),
    ({**MONITOR, "devices": 1}, "devices"),
    ({**MONITOR, "accelerator": "cud"}, "accelerator"),
    ({**MONITOR, "scheduler.name": "step"}, "scheduler.lr_decay_steps"),
    ({**MONITOR, "data.train_path": "/nowhere"}, "data.train_path"),
    ({**MONITOR, "optimizer.batch_size": 5000}, "optimizer.batch_size"),
    ({**MONITOR, "augmentations.0.num_crops": 3}, "augmentations"),
    ({**MONITOR, "method_kwargs.temprature": 1}, "method_kwargs.temprature"),
    ({"method": "ldreg_simclrr"}, "method"),
    ({"method": "ldreg_simclr", "momentum.base_tau": 2}, "momentum.base_tau"),
    ({"regularizers.ldreg.k": 64}, "regularizers.ldreg.k"),
    ({"regularizers.ldreg.weigth": 1}, "regularizers.ldreg.weigth"),
    ({"backbone.name": "timm/resnet1x"}, "backbone.name"),
    ({"projector.num_groups": 3}, "projector.num_groups"),
    ({"divergence.patience": 0}, "divergence.patience"),
    ({"extra_keys": ["bar"], "foo": 1}, "foo"),
    ({**MONITOR, "accelerator": "tpu"}, "solo-learn cannot make the trainer of this config"),
    ({**MONITOR, "backbone": {"name": "vit_tiny"}}, TRAINED),
]


@pytest.mark.parametrize(
    ("changes", "says"),
    most_slow(WRONG, keep=lambda case: case[1] in ("optimizer.lrr", TRAINED)),
    ids=[str(list(c.values())[-1]) for c, _ in WRONG],
)
def test_a_config_of_ours_that_cannot_work_ends_the_script_in_one_line(
    pretrain_here: Any, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    status, lines = pretrain_here(changes)
    (line,) = (line for line in lines if line.startswith("error: "))
    assert status == 2 and line.startswith(f"error: {says}"), line
    assert not any("Traceback" in each for each in lines)
    assert lines == [line] or says in BUILT, lines
    assert [each.name for each in tmp_path.iterdir()] in (["configs"], ["configs", "lightning_logs"])


def test_a_config_without_a_word_of_ours_runs_whatever_is_in_it(pretrain_here: Any, tmp_path: Path) -> None:
    odd = {"optimizer.lrr": 1, "foo.bar": "x", "checkpoint.freq": 0, "regularizer": {}, "seed": -1}
    status, lines = pretrain_here({**odd, "limit_train_batches": 1, "checkpoint.enabled": True})
    assert status == 0, lines
    assert [line for line in lines if line.startswith("warning: ")] == [
        "warning: regularizer: unknown block, which nothing reads. Did you mean 'regularizers'?"
    ]
    assert list((tmp_path / "trained_models").rglob("*.ckpt"))


@pytest.mark.slow
def test_a_bad_image_is_named_from_a_worker_of_the_script(
    solo_learn_clone: Path, few_digits: Path, tmp_path: Path
) -> None:
    images = shutil.copytree(few_digits, tmp_path / "images")
    for path in list((images / "train" / "3").iterdir()):
        path.write_text("no image")
    folder = solo_learn_clone / "scripts" / "pretrain" / "cifar"
    overrides = ("data.val_path=null", *on_digits(images), "data.num_workers=2", "optimizer.batch_size=110")
    command = [sys.executable, str(solo_learn_clone / "main_pretrain.py"), "--config-path", str(folder)]
    command += ["--config-name", "ldreg_simclr", *ON_CPU, *overrides, "regularizers.ldreg.warmup_epochs=0"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert run.returncode == 2 and "Traceback" not in run.stderr, run.stderr[-3000:]
    assert len(errors) == 1 and errors[0].startswith(f"error: {images}/train/3/"), run.stderr[-3000:]


def columns(file: Path, *names: str) -> list[float]:
    with file.open() as lines:
        return [float(row[name]) for row in csv.DictReader(lines) for name in names if row.get(name)]


@pytest.mark.slow
def test_the_scripts_read_deep_images_as_those_of_8_bits(
    pretrain_here: Any, few_digits: Path, tmp_path: Path
) -> None:
    """Training and online validation of main_pretrain.py, and main_linear.py on its checkpoint."""
    weights: list[list[dict[str, torch.Tensor]]] = []
    losses = []
    short = {"limit_train_batches": 1, "limit_val_batches": 1, "num_sanity_val_steps": 0}
    for deep in (False, True):
        images, kept = tmp_path / f"images{deep}", tmp_path / f"kept{deep}"
        for path in few_digits.rglob("*.png"):
            values = np.array(Image.open(path).convert("L"))
            values[0, :2] = 0, 255
            target = images / path.relative_to(few_digits)
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.astype(np.uint16) * 10 if deep else values).save(target)
        data = {"data.train_path": str(images / "train"), "data.val_path": str(images / "val"), **short}
        data |= {"checkpoint": {"enabled": True, "dir": str(kept)}, "optimizer.batch_size": 8}
        status, lines = pretrain_here(data)
        assert status == 0 and any("64 of more than 8 bits" in line for line in lines) == deep, lines
        (checkpoint,) = kept.rglob("*.ckpt")
        linear = {"pretrained_feature_extractor": str(checkpoint), "pretrain_method": "simclr"}
        torch.manual_seed(0)
        status, lines = pretrain_here({**data, **linear}, "main_linear.py")
        assert status == 0, lines
        paths = [checkpoint, *(kept / "linear").rglob("*.ckpt")]
        weights.append([torch.load(path, weights_only=True)["state_dict"] for path in paths])
        files = sorted((tmp_path / "lightning_logs").rglob("metrics.csv"), key=os.path.getmtime)[-2:]
        losses.append([columns(file, "val_loss") for file in files])
    assert losses[0] == losses[1] and len(losses[0][1]) == 1
    for ours, others in zip(*weights, strict=True):
        assert all(torch.equal(value, others[name]) for name, value in ours.items())
    assert len(weights[0]) == 2


@pytest.mark.parametrize("script", ["main_pretrain.py", "main_linear.py"])
def test_a_data_set_that_cannot_be_downloaded_is_named(
    pretrain_here: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    for name in ("http_proxy", "https_proxy"):  # a port at which nobody listens
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setattr("urllib.request._opener", None)
    checkpoint = tmp_path / "backbone.ckpt"
    torch.save({"state_dict": {}}, checkpoint)
    data = {"data.dataset": "cifar10", "data.train_path": "nowhere", "data.val_path": "nowhere"}
    linear = {"pretrained_feature_extractor": str(checkpoint), "backbone": {"name": "resnet18"}}
    status, lines = pretrain_here({**data, **linear}, script)
    (line,) = (line for line in lines if line.startswith("error: "))
    assert status == 2 and not any("Traceback" in each for each in lines)
    assert line.startswith("error: data.dataset: 'cifar10' ") and "(URLError: " in line, line
    assert line.endswith("data.dataset must be 'custom', which reads a folder."), line


def test_deep_images_that_dali_would_misread_are_named(
    pretrain_here: Any, few_digits: Path, tmp_path: Path
) -> None:
    images = Path(shutil.copytree(few_digits, tmp_path / "images"))
    for path in images.rglob("*.png"):
        Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 900).save(path)
    data = {"data.train_path": str(images / "train"), "data.val_path": str(images / "val")}
    linear = {"data.format": "dali", "pretrained_feature_extractor": "none.ckpt"}
    status, lines = pretrain_here({**data, **linear}, "main_linear.py")
    (line,) = (line for line in lines if line.startswith("error: "))
    assert status == 2 and line.startswith("error: data.train_path: ") and "which DALI" in line, lines
    status, lines = pretrain_here({**data, **MONITOR, "data.format": "dali"})
    assert status == 2 and "error: data.format: 'dali' needs " in lines[-1], lines
    _, lines = pretrain_here({**data, "data.format": "dali"})  # a config without a word of ours
    (line,) = (line for line in lines if line.startswith("warning: "))
    assert line.startswith("warning: data.train_path: ") and "which DALI" in line


@pytest.mark.slow
def test_a_job_that_fails_leaves_the_others_of_a_sweep(
    solo_learn_clone: Path, few_digits: Path, tmp_path: Path
) -> None:
    sweep = ("--multirun", "optimizer.lr=1e30,0.01", "optimizer.name=sgd", "divergence.patience=1")
    settings = ("data.val_path=null", *on_digits(few_digits), "scheduler.name=none")
    command = [sys.executable, str(solo_learn_clone / "main_pretrain.py"), "--config-path", "digits"]
    command += ["--config-name", "simclr", *sweep, *ON_CPU, *settings]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode != 0 and "has diverged" in run.stderr, run.stderr[-3000:]
    finished = tmp_path.glob("trained_models/simclr/*/*.ckpt")
    assert {json.loads((file.parent / "args.json").read_text())["optimizer"]["lr"] for file in finished}
