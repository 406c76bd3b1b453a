"""Pretrain a method with solo-learn's data, trainer and checkpoints."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from solo_dimreg.config.agreement import idle_settings
from solo_dimreg.config.loading import load_settings
from solo_dimreg.config.steps import check_steps
from solo_dimreg.config.values import plain
from solo_dimreg.datasets.check import readings_of
from solo_dimreg.datasets.downloads import explained_download
from solo_dimreg.datasets.images import read_with_us
from solo_dimreg.errors import DimregError, unforeseen, warn
from solo_dimreg.files import check_writable
from solo_dimreg.monitor.stopping import signals_of_slurm
from solo_dimreg.solo_learn import Host, register
from solo_dimreg.solo_learn.backbone import check_input_sizes, find_backbone
from solo_dimreg.solo_learn.mixins import Mixin, mixed_in
from solo_dimreg.training.evaluation import evaluation_transforms, labelled_images
from solo_dimreg.training.resuming import resume_from
from solo_dimreg.training.wandb_mode import go_offline, own_wandb_run


def pretrain(settings: DictConfig, on_start: Callable[[], None] | None = None) -> Path | None:
    """Run the pretraining that a config describes and return the folder of its checkpoint.

    Args:
        settings: A config in the format of the current solo-learn, which is fitted to the machine, in place.
        on_start: Called when everything is checked and built, just before the training.

    Returns:
        The folder with the checkpoint and ``args.json``; None with ``checkpoint.enabled: False``.

    Raises:
        ConfigError: The config cannot work; this is raised before the training starts.
        KeyboardInterrupt: The user stopped the training; the last epoch's checkpoint is kept.
    """
    host = register()
    loaded = load_settings(host, settings)
    root = Path(loaded.checkpoint.dir, loaded.method)
    if not loaded.wandb.enabled:  # metrics.csv is written beside the checkpoints
        check_writable("checkpoint.dir", root.parent)
    host.seed(settings.get("seed", 5))
    try:
        arguments = host.pretraining_arguments(settings)
        method = host.build_method(arguments)
        method.raises = True
        with explained_download(settings.data.dataset, settings.data.train_path):
            data = host.training_data(arguments)
    except DimregError:
        raise
    except Exception as error:
        raise unforeseen("build", error) from error
    if find_backbone(settings.backbone.name) is not None:
        sizes = {augmentation.crop_size for augmentation in settings.augmentations}
        check_input_sizes(settings.backbone.name, host.backbone(method), sizes)
    if "train_dataloaders" in data:
        images = read_with_us(data["train_dataloaders"].dataset)
        check_steps(settings, len(images))
        if line := readings_of(images):
            warn(f"data.train_path: {line}")
    validation = _validation_loader(host, settings)
    if "datamodule" in data:
        data["datamodule"].val_dataloader = lambda: validation
    else:
        data["val_dataloaders"] = validation
    checkpointer, callbacks = None, []
    if loaded.checkpoint.enabled:
        checkpointer = host.checkpointer(arguments, root)
        callbacks = [checkpointer, mixed_in(LastEpoch, host.pl.Callback)(checkpointer)]
    resumed = resume_from(host, loaded, arguments, root)
    with own_wandb_run(settings):
        try:
            trainer = _trainer(host, settings, root, callbacks, resumed)
        except Exception as error:
            raise unforeseen("make the trainer of", error) from error
        for line in idle_settings(host, settings, loaded):
            warn(line)
        if on_start is not None:
            on_start()
        try:
            with signals_of_slurm(trainer):
                trainer.fit(method, **data, ckpt_path=resumed and str(resumed))
        except Exception as error:
            if trainer.global_step or isinstance(error, DimregError):
                raise
            raise unforeseen("train", error) from error
        if trainer.interrupted:
            raise KeyboardInterrupt
    # A run that is resumed after its last epoch does not train, and its checkpointer has no folder.
    return getattr(checkpointer, "path", resumed.parent if resumed else None)


def _validation_loader(host: Host, settings: DictConfig) -> Any:
    data = settings.data
    if data.get("val_path") is None or data.get("no_labels", False):
        return None
    _, transform = evaluation_transforms(host, settings)
    datasets = labelled_images(host, settings, transform, transform)
    return host.evaluation_loaders(*datasets, settings.optimizer.batch_size, data.num_workers)[1]


class LastEpoch(Mixin):
    """A callback that saves the last epoch, which solo-learn skips unless its frequency divides it."""

    def __init__(self, checkpointer: Any) -> None:
        super().__init__()
        self.checkpointer = checkpointer

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        """Save, if solo-learn's checkpointer has not."""
        epoch = trainer.current_epoch
        if epoch == trainer.max_epochs - 1 and epoch % self.checkpointer.frequency:
            self.checkpointer.save(trainer)


def _wandb_logger(host: Host, settings: DictConfig, resumed: Path | None) -> Any:
    wandb = settings.wandb
    identity = {}
    if resumed:  # solo-learn's checkpointer names a run's folder by its id
        before = host.settings_of(json.loads((resumed.parent / "args.json").read_text()))
        if (before.get("wandb") or {}).get("enabled"):
            identity = {"id": resumed.parent.name, "resume": "allow"}
    logger = host.pl.loggers.WandbLogger(
        name=settings.name,
        project=wandb.get("project", "solo-learn"),
        entity=wandb.get("entity"),
        offline=wandb.get("offline", False),
        **identity,
    )
    logger.log_hyperparams(plain(settings))
    return logger


def _trainer(host: Host, settings: DictConfig, root: Path, callbacks: list[Any], resumed: Path | None) -> Any:
    if settings.get("wandb", {}).get("enabled", False):
        try:
            logger = _wandb_logger(host, settings, resumed)
        except Exception as error:  # for example, the server refuses the key
            if settings.wandb.get("offline"):
                raise
            import wandb

            wandb.teardown()
            go_offline(settings, str(error).strip().partition("\n")[0].rstrip("."))
            logger = _wandb_logger(host, settings, resumed)
        callbacks = [*callbacks, host.pl.callbacks.LearningRateMonitor(logging_interval="step")]
    else:
        # The checkpointer names its folder after this version, so metrics.csv is beside the checkpoint. With
        # several processes, the version of the first one is used (solo_learn/saving.py).
        version = f"offline-{secrets.token_hex(4)}"
        logger = host.pl.loggers.CSVLogger(str(root.parent), name=root.name, version=version)
    chosen = {"log_every_n_steps": 10, **host.trainer_settings(settings)}
    chosen.update(logger=logger, callbacks=callbacks, enable_checkpointing=False)
    return host.pl.Trainer(**chosen)
