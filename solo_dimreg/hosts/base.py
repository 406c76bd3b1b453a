"""What the two solo-learns have in common, seen from outside: the interface that the CLI works with.

Settings are always a config in the format of the current solo-learn (an OmegaConf ``DictConfig``); what a
host makes of them, its *arguments*, is its own affair.
"""

from __future__ import annotations

import json
import logging
import re
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.utils.data import DataLoader, Dataset

from solo_dimreg.errors import ConfigError, DimregError, unknown
from solo_dimreg.hosts.method import make_method_base

# The number of classes of the data sets that solo-learn knows by name.
CLASSES = {"cifar10": 10, "cifar100": 100, "stl10": 10, "imagenet": 1000, "imagenet100": 100}
# The blocks of a config that we add to solo-learn's.
OWN_BLOCKS = ("regularizers", "monitor", "projector")
# Our variants of every method of solo-learn: LDReg, and the same with the opposite sign.
VARIANTS = ("ldreg_", "minlid_")


def base_name(method: str) -> str:
    """The name of the method of solo-learn of which ``method`` is a variant; other names as they are."""
    for prefix in VARIANTS:
        method = method.removeprefix(prefix)
    return method


def plain(block: Any) -> Any:
    """An OmegaConf node as plain containers; anything else as it is."""
    return OmegaConf.to_container(block, resolve=True) if OmegaConf.is_config(block) else block


def device_count(devices: Any) -> int:
    """How many devices ``devices:`` of a config stands for: a list, a number, or either as a string."""
    if isinstance(devices, str) and "," in devices:
        return len([part for part in devices.split(",") if part.strip()])
    if isinstance(devices, str | int):
        count = -1 if devices == "auto" else int(devices)
        return max(1, torch.cuda.device_count()) if count == -1 else count
    return len(devices)


@dataclass(frozen=True)
class Run:
    """A pretraining run read back from its folder."""

    folder: Path
    checkpoint: Path
    settings: DictConfig
    method: Any


class Host(ABC):
    """One solo-learn: its classes, and how to build a method, its data, its trainer and a probe.

    Attributes:
        generation: ``"current"`` or ``"published"``.
        methods: solo-learn's own table ``METHODS``, changed in place by the registration.
        pl: The Lightning that this solo-learn uses.
        base_method, momentum_method: solo-learn's base classes.
        Method: The base class for methods that are written once for both solo-learns.
    """

    generation: str

    def __init__(self, methods: dict[str, type], base_method: type, momentum_method: type, pl: Any) -> None:
        self.methods = methods
        self.base_method = base_method
        self.momentum_method = momentum_method
        self.pl = pl
        self.Method = make_method_base(base_method, self.read_block)

    @staticmethod
    @abstractmethod
    def read_block(args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> Mapping[str, Any] | None:
        """A block of settings from the arguments of a method's constructor, as plain containers."""

    @staticmethod
    @abstractmethod
    def write_block(
        args: tuple[Any, ...], kwargs: dict[str, Any], name: str, block: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The keyword arguments of a method's constructor with a block of settings put in."""

    @abstractmethod
    def initialize(self, method: Any, init: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Runs ``init``, the constructor of solo-learn's base class, with any of our backbones."""

    @abstractmethod
    def add_backbones(self) -> None:
        """Makes timm's and the plugins' backbones known to solo-learn, where it keeps a table of them."""

    @abstractmethod
    def pretraining_arguments(self, settings: DictConfig) -> Any:
        """solo-learn's own defaults, checks and scaling applied to a config."""

    @abstractmethod
    def build_method(self, arguments: Any) -> Any:
        """The method, ready to train."""

    @abstractmethod
    def training_data(self, arguments: Any) -> dict[str, Any]:
        """What ``Trainer.fit`` gets to train on, by the name of its parameter."""

    @abstractmethod
    def evaluation_datasets(
        self, settings: DictConfig, train_transform: Callable, val_transform: Callable
    ) -> tuple[Dataset, Dataset]:
        """Labelled training and validation sets, through solo-learn's ``prepare_datasets``."""

    @abstractmethod
    def evaluation_transforms(self, dataset: str) -> tuple[Callable, Callable]:
        """solo-learn's own transforms for the linear evaluation of a data set."""

    @abstractmethod
    def evaluation_loaders(
        self, train: Dataset, val: Dataset, batch_size: int, num_workers: int
    ) -> tuple[DataLoader, DataLoader]:
        """solo-learn's loaders around the two sets."""

    @abstractmethod
    def checkpointer(self, arguments: Any, folder: Path) -> Any:
        """solo-learn's callback that writes the checkpoints and ``args.json``."""

    @abstractmethod
    def resumable(self, arguments: Any) -> Path | None:
        """The checkpoint that solo-learn's auto-resume finds for these arguments."""

    @abstractmethod
    def trainer_settings(self, settings: DictConfig) -> dict[str, Any]:
        """The config's settings of the trainer in the spelling of this Lightning."""

    @abstractmethod
    def build_probe(self, backbone: nn.Module, settings: DictConfig, num_classes: int) -> Any:
        """solo-learn's linear evaluation on a frozen backbone."""

    @abstractmethod
    def backbone(self, method: Any) -> nn.Module:
        """The encoder inside a method."""

    @abstractmethod
    def draw_umap(self, backbone: nn.Module, loader: DataLoader, device: str, path: Path) -> None:
        """solo-learn's UMAP plot of the features of labelled images, as a PNG file; needs the extra umap."""

    @abstractmethod
    def settings_of(self, arguments: dict[str, Any]) -> DictConfig:
        """The config behind the ``args.json`` of a run."""

    @abstractmethod
    def rebuild(self, arguments: dict[str, Any]) -> Any:
        """The method behind the ``args.json`` of a run, with fresh weights."""

    @property
    def trainable(self) -> list[str]:
        """Names of the methods that can be pretrained: all but solo-learn's base and its linear probe."""
        return sorted(set(self.methods) - {"base", "linear"})

    def seed(self, seed: int) -> None:
        """Seeds every generator as solo-learn's scripts do, without Lightning's line about it."""
        previous = logging.root.manager.disable
        logging.disable(logging.INFO)
        try:
            self.pl.seed_everything(seed)
        finally:
            logging.disable(previous)

    def _build_without_data(self, settings: DictConfig, classes: int) -> Any:
        """The method of a config whose images may be elsewhere; solo-learn counts folders of classes."""
        settings = OmegaConf.create(plain(settings))
        with tempfile.TemporaryDirectory() as folder:
            for number in range(classes):
                Path(folder, str(number)).mkdir()
            settings.data.train_path = folder
            return self.build_method(self.pretraining_arguments(settings))

    def knn(self, k: int, temperature: float, distance: str) -> Any:
        """solo-learn's weighted k-NN classifier."""
        from solo.utils.knn import WeightedKNNClassifier

        return WeightedKNNClassifier(k=k, T=temperature, distance_fx=distance)

    def read_run(self, path: Path) -> Run:
        """Reads a pretraining run back, also one of the other solo-learn.

        Args:
            path: A checkpoint folder of solo-learn's, or a ``.ckpt`` file in it.

        Raises:
            ConfigError: there is no such run, or its weights do not fit its ``args.json``.
        """
        folder, checkpoint = find_checkpoint(path)
        arguments = _read_arguments(folder / "args.json")
        name = arguments.get("method")
        if name not in self.trainable:
            raise ConfigError(f"{folder / 'args.json'}: {unknown('method', str(name), self.trainable)}")
        made_by = "current" if "backbone" in arguments else "published"
        state = _read_state(checkpoint)
        try:
            settings = self.settings_of(arguments)
            if made_by == self.generation:
                method = self.rebuild(arguments)
            else:
                method = self._build_without_data(settings, len(state.get("classifier.bias", [0])))
        except DimregError:
            raise
        except Exception as error:
            raise ConfigError(
                f"{folder / 'args.json'}: is no record of a {name} that this solo-learn "
                f"({self.generation}) can read; the {made_by} one wrote it "
                f"({type(error).__name__}: {_first_line(error)})."
            ) from error
        try:
            method.load_state_dict({_renamed(key, self.generation): value for key, value in state.items()})
        except Exception as error:
            lines = str(error).strip().splitlines()
            reason = lines[1].strip() if len(lines) > 1 else _first_line(error)
            raise ConfigError(
                f"{checkpoint}: is no intact checkpoint of the {name} that args.json beside it describes "
                f"({type(error).__name__}: {reason[:200]})."
            ) from error
        return Run(folder, checkpoint, settings, method.eval())


def _renamed(key: str, generation: str) -> str:
    """A key of a state dict as this solo-learn calls it: the two differ in the name of the encoder."""
    theirs, ours = ("encoder", "backbone") if generation == "current" else ("backbone", "encoder")
    for prefix in ("", "momentum_"):
        if key.startswith(f"{prefix}{theirs}."):
            return prefix + ours + key.removeprefix(prefix + theirs)
    return key


def _read_state(checkpoint: Path) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of another pickle protocol, in files that are refused anyway
            return dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"])
    except UnpicklingError as error:
        raise ConfigError(
            f"{checkpoint}: holds more than weights and settings, which could run code and is not loaded."
        ) from error
    except Exception as error:
        raise ConfigError(
            f"{checkpoint}: is no intact checkpoint ({type(error).__name__}: {_first_line(error)[:200]})."
        ) from error


def _read_arguments(path: Path) -> dict[str, Any]:
    try:
        arguments = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({_first_line(error)}).") from error
    if not isinstance(arguments, dict):
        raise ConfigError(f"{path}: must hold the settings of a run, a JSON object.")
    return arguments


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


def find_checkpoint(path: Path) -> tuple[Path, Path]:
    """The run's folder and its latest checkpoint.

    Args:
        path: A ``.ckpt`` file, its folder, or a folder with exactly one such folder below it.

    Raises:
        ConfigError: nothing there, or more than one run.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such checkpoint; give a .ckpt file or the folder that holds it.")
    if path.is_file():
        folder, checkpoints = path.parent, [path]
    else:
        folders = sorted({file.parent for file in path.rglob("*.ckpt")})
        if len(folders) != 1:
            listed = ", ".join(str(f) for f in folders) or "none"
            raise ConfigError(f"{path}: must hold one run with checkpoints; found {listed}.")
        folder = folders[0]
        checkpoints = sorted(
            folder.glob("*.ckpt"), key=lambda file: (checkpoint_epoch(file), file.stat().st_mtime)
        )
    if not (folder / "args.json").is_file():
        raise ConfigError(f"{folder}: args.json is missing; solo-learn writes it beside its checkpoints.")
    return folder, checkpoints[-1]


def checkpoint_epoch(checkpoint: Path) -> int:
    """The epoch in the name of a checkpoint of solo-learn's, counted from 0; -1 without one."""
    match = re.search(r"ep=(\d+)", checkpoint.stem)
    return int(match.group(1)) if match else -1
