"""Pretrains a method with solo-learn's data, trainer and checkpoints."""

from __future__ import annotations

import random
import string
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from solo_dimreg.backbones import check_input_sizes, find_backbone
from solo_dimreg.errors import ConfigError
from solo_dimreg.evaluation import evaluation_transforms
from solo_dimreg.hosts import Host, plain, register
from solo_dimreg.settings import check_full_batch, check_pretraining


def pretrain(settings: DictConfig) -> Path | None:
    """Trains what a config asks for.

    Args:
        settings: A config in the format of the current solo-learn, fitted to the machine.

    Returns:
        The folder with the checkpoint and ``args.json``; None with ``checkpoint.enabled: False``.

    Raises:
        ConfigError: the config cannot work; raised before training starts.
        KeyboardInterrupt: the user stopped the training; the last epoch's checkpoint is kept.
    """
    host = register()
    check_pretraining(host, settings)
    host.seed(settings.get("seed", 5))
    try:
        arguments = host.pretraining_arguments(settings)
        method = host.build_method(arguments)
        data = host.training_data(arguments)
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"The config lacks a setting or has a wrong one: {str(error).splitlines()[0]}"
        ) from error
    if find_backbone(settings.backbone.name) is not None:
        sizes = {augmentation.crop_size for augmentation in settings.augmentations}
        check_input_sizes(settings.backbone.name, host.backbone(method), sizes)
    if "train_dataloaders" in data:
        check_full_batch(settings, len(data["train_dataloaders"].dataset))
    validation = _validation_loader(host, settings)
    if "datamodule" in data:
        data["datamodule"].val_dataloader = lambda: validation
    else:
        data["val_dataloaders"] = validation
    checkpointer = None
    if settings.get("checkpoint", {}).get("enabled", False):
        checkpointer = host.checkpointer(arguments, _run_folder(settings))
    trainer = _trainer(
        host, settings, [checkpointer, _last_epoch(host, checkpointer)] if checkpointer else []
    )
    trainer.fit(method, **data, ckpt_path=_resume_from(host, settings, arguments))
    if trainer.interrupted:
        raise KeyboardInterrupt
    return checkpointer.path if checkpointer else None


def _validation_loader(host: Host, settings: DictConfig) -> Any:
    data = settings.data
    if data.get("val_path") is None or data.get("no_labels", False):
        return None
    _, transform = evaluation_transforms(host, settings)
    datasets = host.evaluation_datasets(settings, transform, transform)
    return host.evaluation_loaders(*datasets, settings.optimizer.batch_size, data.num_workers)[1]


def _run_folder(settings: DictConfig) -> Path:
    return Path(settings.checkpoint.get("dir", "trained_models")) / settings.method


def _resume_from(host: Host, settings: DictConfig, arguments: Any) -> Path | str | None:
    given = settings.get("resume_from_checkpoint")
    if given is not None:
        if not Path(given).is_file():
            raise ConfigError(f"resume_from_checkpoint: {given!r} is no file.")
        return given
    if settings.get("auto_resume", {}).get("enabled", False) and settings.get("checkpoint", {}).get(
        "enabled"
    ):
        found = host.resumable(arguments)
        if found:
            print(f"Resuming from {found}")
        return found
    return None


def _last_epoch(host: Host, checkpointer: Any) -> Any:
    """A callback that saves the last epoch, which the checkpointer skips unless its frequency divides it."""

    class LastEpoch(host.pl.Callback):  # type: ignore[misc, name-defined]
        def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
            epoch = trainer.current_epoch
            if epoch == trainer.max_epochs - 1 and epoch % checkpointer.frequency:
                checkpointer.save(trainer)

    return LastEpoch()


def _trainer(host: Host, settings: DictConfig, callbacks: list[Any]) -> Any:
    loggers = host.pl.loggers
    wandb = settings.get("wandb", {})
    if wandb.get("enabled", False):
        logger = loggers.WandbLogger(
            name=settings.name,
            project=wandb.get("project", "solo-learn"),
            entity=wandb.get("entity"),
            offline=wandb.get("offline", False),
        )
        logger.log_hyperparams(plain(settings))
        callbacks = [*callbacks, host.pl.callbacks.LearningRateMonitor(logging_interval="step")]
    else:
        folder = _run_folder(settings) if "checkpoint" in settings else Path("trained_models")
        # The checkpointer names its folder after this version: metrics.csv lies beside the checkpoint.
        version = "offline-" + "".join(
            random.SystemRandom().choices(string.ascii_lowercase + string.digits, k=8)
        )
        logger = loggers.CSVLogger(str(folder.parent), name=folder.name, version=version)
    chosen = {"log_every_n_steps": 10, **host.trainer_settings(settings)}
    chosen.update(logger=logger, callbacks=callbacks, enable_checkpointing=False)
    return host.pl.Trainer(**chosen)
