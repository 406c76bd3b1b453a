"""What the two solo-learns have in common, seen from outside: the interface that the CLI works with.

Settings are always a config in the format of the current solo-learn (an OmegaConf ``DictConfig``); what a
host makes of them, its *arguments*, is its own affair.
"""

from __future__ import annotations

import inspect
import logging
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.utils.data import DataLoader, Dataset

from solo_dimreg.hosts.method import make_method_base
from solo_dimreg.hosts.runs import Run, read_run

# The number of classes of the data sets that solo-learn knows by name.
CLASSES = {"cifar10": 10, "cifar100": 100, "stl10": 10, "imagenet": 1000, "imagenet100": 100}
# The resolution of solo-learn's own evaluation transforms; "custom" has 224 whatever was trained.
NATIVE_SIZES = {
    "cifar10": 32,
    "cifar100": 32,
    "stl10": 96,
    "imagenet": 224,
    "imagenet100": 224,
    "custom": 224,
}
# Our linear configs by the data set that solo-learn knows by name; other images have that of the digits.
LINEAR_CONFIGS = {
    **{"cifar10": "cifar", "cifar100": "cifar"},
    **{"imagenet": "imagenet", "imagenet100": "imagenet100"},
}
# The blocks of a config that we add to solo-learn's.
OWN_BLOCKS = ("regularizers", "monitor", "projector", "divergence")
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


class Host(ABC):
    """One solo-learn: its classes, and how to build a method, its data, its trainer and a probe.

    Attributes:
        generation: ``"current"`` or ``"published"``.
        methods: solo-learn's own table ``METHODS``, changed in place by the registration.
        own_methods: The names that were in it before.
        pl: The Lightning that this solo-learn uses.
        base_method, momentum_method: solo-learn's base classes.
        Method: The base class for methods that are written once for both solo-learns.
    """

    generation: str

    def __init__(self, methods: dict[str, type], base_method: type, momentum_method: type, pl: Any) -> None:
        self.methods = methods
        self.own_methods = frozenset(methods) - {"base", "linear"}
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

    def without_labels(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the arguments of a method's constructor ask for images without labels."""
        data = self.read_block(args, kwargs, "data") or kwargs  # in 1.0.2 each setting is an argument itself
        return bool(data.get("no_labels", False))

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
    def trainer_settings(self, settings: DictConfig) -> dict[str, Any]:
        """The config's settings of the trainer in the spelling of this Lightning."""

    @staticmethod
    @abstractmethod
    def momentum_steps(trainer: Any) -> tuple[int, int]:
        """The numbers from which this solo-learn computes tau: of what is done, and of the whole training."""

    @abstractmethod
    def build_probe(self, backbone: nn.Module, settings: DictConfig, num_classes: int) -> Any:
        """solo-learn's linear evaluation on a frozen backbone."""

    @abstractmethod
    def bare_backbone(self, name: str, method: str | None, kwargs: Mapping[str, Any]) -> nn.Module:
        """A backbone by its name and ``backbone.kwargs``, as its constructor makes it."""

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

    def config_folders(self) -> list[Path]:
        """Return solo-learn's own folders of pretraining configs, which lie beside the package in a clone."""
        package = Path(inspect.getfile(self.base_method)).parents[1]
        return sorted(each for each in package.parent.glob("scripts/pretrain/*") if each.is_dir())

    def terms(self, method: str, block: Mapping[str, Any]) -> dict[str, Any]:
        """The regularizers of a config's ``regularizers:`` block, and those that the method has anyway."""
        complete = getattr(self.methods[method], "with_term", dict)
        return complete(block)

    def config_of(self, method: Any) -> DictConfig | None:
        """Return the config that a method was built from; None where it was built otherwise."""
        return getattr(method, "cfg" if self.generation == "current" else "settings", None)

    def seed(self, seed: int) -> None:
        """Seeds every generator as solo-learn's scripts do, without Lightning's line about it."""
        previous = logging.root.manager.disable
        logging.disable(logging.INFO)
        try:
            self.pl.seed_everything(seed)
        finally:
            logging.disable(previous)

    def build_without_data(self, settings: DictConfig, classes: int) -> Any:
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
        return read_run(self, path)
