"""List the commands that evaluate a run, and say why another command is missing."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import torch
from omegaconf import DictConfig

from solo_dimreg.config.values import plain
from solo_dimreg.files import checkpoint_epoch
from solo_dimreg.solo_learn.base import LINEAR_CONFIGS, NATIVE_SIZES, Host
from solo_dimreg.solo_learn.record import evaluated_as_trained, read_record

# The overrides that solo-learn's scripts need without a GPU.
ON_CPU = ("accelerator=cpu", 'devices="1"', "strategy=auto", "precision=32", "sync_batchnorm=False")
# torchvision's data sets have their training and test images below one folder.
ONE_FOLDER = ("cifar10", "cifar100", "stl10")
LABELLED = "FOLDER"
# The largest batch of our linear configs; with fewer images, no batch would be full.
LARGEST_BATCH = 512


def next_steps(host: Host, folder: Path) -> list[str]:
    """Return shell commands that evaluate the run in a folder; a comment says what a command needs.

    A line that begins with ``#`` says why another command is missing. A placeholder is ``FOLDER``.
    """
    settings = host.settings_of(json.loads((folder / "args.json").read_text()))
    data, run = settings.data, shlex.quote(str(folder))
    linear = " ".join(["solo-dimreg linear", run, *_smaller_batch(settings, folder)])
    diagnose = f"solo-dimreg diagnose {run}"
    if data.get("no_labels"):
        return [
            diagnose,
            f"# linear and knn need labels, which data.no_labels leaves out. {LABELLED}: labelled images, a "
            "folder per class below train/ and val/.",
            f"solo-dimreg linear {run} --data {LABELLED}",
            f"solo-dimreg knn {run} --train-path {LABELLED}/train --val-path {LABELLED}/val",
        ]
    if data.get("val_path") is None and data.dataset not in ONE_FOLDER:
        return [
            diagnose,
            f"# linear and knn need test images, but data.val_path was not given. {LABELLED}: a folder "
            "per class, as in data.train_path.",
            f"{linear} data.val_path={LABELLED}",
            f"solo-dimreg knn {run} --val-path {LABELLED}",
        ]
    commands = [linear, f"solo-dimreg knn {run}", diagnose]
    if host.generation != "current":  # the published solo-learn has no scripts
        return commands
    return [*commands, *_script(settings, folder)]


def _script(settings: DictConfig, folder: Path) -> list[str]:
    """Return the command of solo-learn's own linear evaluation, or the reason why it is left out."""
    dataset, size = settings.data.dataset, settings.augmentations[0].crop_size
    if NATIVE_SIZES[dataset] != size:
        return [
            f"# solo-learn's main_linear.py is left out: it evaluates {dataset} images at "
            f"{NATIVE_SIZES[dataset]} px, near chance for this training at {size} px."
        ]
    if not evaluated_as_trained(settings):
        return ["# solo-learn's main_linear.py is left out: it does not read augmentations.mean and std."]
    checkpoint = max(folder.glob("*.ckpt"), key=checkpoint_epoch)
    kwargs = plain(settings.backbone.get("kwargs")) or {}
    train = settings.data.train_path
    paths = {"train_path": train, "val_path": settings.data.get("val_path") or train}
    overrides = [
        f'pretrained_feature_extractor="{checkpoint}"',  # quoted because its name contains =
        f"+pretrain_method={settings.method}",
        f"backbone.name={settings.backbone.name}",
        "~backbone.kwargs",
        "+backbone.kwargs={" + ", ".join(f"{key}: {json.dumps(kwargs[key])}" for key in kwargs) + "}",
        f"data.dataset={dataset}",
        *(f'data.{key}="{path}"' for key, path in paths.items()),
        *_smaller_batch(settings, folder),
        *(() if torch.cuda.is_available() else ON_CPU),
    ]
    config = LINEAR_CONFIGS.get(dataset, "digits")
    command = ["python", "main_linear.py", "--config-path", config, "--config-name", "linear", *overrides]
    return [shlex.join(command)]


def _smaller_batch(settings: DictConfig, folder: Path) -> list[str]:
    """Return the pretraining's batch size as an override, if the linear batch could exceed the images."""
    images = (read_record(folder).get("data") or {}).get("train_images")
    if images is None or images >= LARGEST_BATCH:
        return []
    return [f"optimizer.batch_size={settings.optimizer.batch_size}"]
