"""Check the config of solo-learn's own ``main_pretrain.py`` as our commands check theirs."""

from __future__ import annotations

import copy
import difflib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from solo_dimreg.config.agreement import idle_settings
from solo_dimreg.config.composing import MACHINE, fit_to_machine
from solo_dimreg.config.data import check_reader
from solo_dimreg.config.loading import load_settings
from solo_dimreg.config.steps import check_steps
from solo_dimreg.config.values import OWN_BLOCKS, device_count, plain
from solo_dimreg.datasets.check import readings_of
from solo_dimreg.errors import ConfigError, unforeseen, warn
from solo_dimreg.quiet import silence, without_logs
from solo_dimreg.solo_learn import Host, register
from solo_dimreg.solo_learn.backbone import find_backbone
from solo_dimreg.training.resuming import check_checkpoint, compare_given, find_latest
from solo_dimreg.training.wandb_mode import settle_wandb

ON_CPU = "accelerator=cpu devices='\"1\"' strategy=auto precision=32 sync_batchnorm=False"


class ScriptChecks:
    """The checks of one run of ``main_pretrain.py``.

    A config without any block, method or backbone of ours is not refused, whatever is in it. A key that
    solo-learn ignored, or a value that it accepted before the add-on was installed, must not end a run. Such
    a config can only cause warnings: for a block whose name resembles one of ours, and for images that are
    not read as they are.
    """

    def __init__(self) -> None:
        self.settings: DictConfig | None = None
        self.arguments: DictConfig | None = None  # the script's own, which solo-learn completes

    def config(self, settings: DictConfig) -> bool:
        """Return whether a config uses the add-on; raise a ConfigError for one that does and cannot work."""
        host = register()
        if not asks_for_us(host, settings):
            for key in map(str, settings):
                if meant := difflib.get_close_matches(key, OWN_BLOCKS, n=1, cutoff=0.8):
                    warn(f"{key}: unknown block, which nothing reads. Did you mean {meant[0]!r}?")
            try:
                check_reader(settings)
            except ConfigError as error:
                warn(str(error))
            return False
        silence()
        self.settings = copy.deepcopy(settings)
        loaded = load_settings(host, self.settings, _fit_to_machine)
        settings.update({key: self.settings[key] for key in MACHINE if key in self.settings})
        _check_machine(host, self.settings)
        if (given := settings.get("resume_from_checkpoint")) is not None:
            check_checkpoint(Path(given))
        for line in idle_settings(host, self.settings, loaded):
            warn(line)
        settle_wandb(settings)
        self.arguments = settings
        return True

    def images(self, dataset: Any) -> Any:
        """Return the data set, after refusing a batch larger than it and warning of misread images.

        The method is built by now, so that its config can be compared with the checkpoint's.

        Raises:
            ConfigError: solo-learn would train on nothing and end normally, or cannot continue from the
                checkpoint.
        """
        if self.settings is not None:
            check_steps(self.settings, len(dataset))
            if (given := self.settings.get("resume_from_checkpoint")) is not None:
                compare_given(register(), Path(given), self.arguments)
        if line := readings_of(dataset):
            warn(f"data.train_path: {line}")
        return dataset

    def resume(self, arguments: DictConfig, folder: Path) -> Path | None:
        """Return the checkpoint below a folder from which auto-resume continues."""
        return find_latest(register(), arguments, folder)


def asks_for_us(host: Host, settings: DictConfig) -> bool:
    """Return whether a config has a method, a block or a backbone of ours, or a method that nobody has."""
    return (
        any(key in settings for key in (*OWN_BLOCKS, "extra_keys"))
        or "check" in (settings.get("data") or {})
        or settings.get("method") not in host.own_methods
        or find_backbone(str(OmegaConf.select(settings, "backbone.name", default=""))) is not None
    )


def _fit_to_machine(settings: DictConfig) -> None:
    """Turn a config written for GPUs into one for the CPU if there is no GPU, as our own commands do.

    ``accelerator=cpu`` alone would end in a TypeError, because solo-learn's parser needs a list of devices
    and a CPU has none. A config with several processes on a CPU is left as it is. A number of devices is
    refused on any machine, because it would work on a CPU only.
    """
    devices = plain(settings.devices)
    if not isinstance(devices, Sequence):
        raise ConfigError(
            f"devices: {devices!r} is not allowed in main_pretrain.py, which uses its length; it must be a "
            'list, such as [0], or on a CPU the string "1".'
        )
    accelerator = settings.get("accelerator", "auto")
    several = accelerator == "cpu" and device_count(devices) > 1
    if accelerator in ("auto", "cpu", "gpu", "cuda") and not several:
        fit_to_machine(settings)


def _check_machine(host: Host, settings: DictConfig) -> None:
    """Refuse settings that our own commands fit to the machine, and the script does not."""
    devices = plain(settings.devices)
    if OmegaConf.select(settings, "auto_umap.enabled") and importlib.util.find_spec("umap") is None:
        raise ConfigError(
            "auto_umap.enabled: True needs the package umap-learn, which is not here; it must be False."
        )
    accelerator = settings.get("accelerator", "auto")
    if accelerator in ("gpu", "cuda") and device_count(devices) > torch.cuda.device_count():
        raise ConfigError(
            f"accelerator: {accelerator!r} with devices={devices!r} is more than the "
            f"{torch.cuda.device_count()} GPUs here; on a CPU it must be {ON_CPU}."
        )
    settings.strategy = settings.get("strategy")  # as the script does, which passes None if it is missing
    try:
        with without_logs():  # Lightning would print its greeting twice
            host.pl.Trainer(**{**host.trainer_settings(settings), "logger": False, "callbacks": []})
    except Exception as error:
        raise unforeseen("make the trainer of", error) from error
