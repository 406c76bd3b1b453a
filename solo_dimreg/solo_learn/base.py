"""The interface that the command line uses, the same for both solo-learns.

Settings are always a config in the format of the current solo-learn (an OmegaConf ``DictConfig``). Each host
turns them into its own *arguments*.
"""

from __future__ import annotations

import importlib
import inspect
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.utils.data import DataLoader, Dataset

from solo_dimreg.config.values import plain
from solo_dimreg.errors import ConfigError, DimregError, unknown
from solo_dimreg.files import find_checkpoint
from solo_dimreg.quiet import without_logs
from solo_dimreg.solo_learn.checkpoints import first_line, generation_of, read_checkpoint, read_object
from solo_dimreg.solo_learn.method import Method
from solo_dimreg.solo_learn.mixins import mixed_in

# The number of classes of the data sets that solo-learn knows by name.
CLASSES = {"cifar10": 10, "cifar100": 100, "stl10": 10, "imagenet": 1000, "imagenet100": 100}
# The resolution of solo-learn's own evaluation transforms; "custom" always evaluates at 224.
NATIVE_SIZES = {
    "cifar10": 32,
    "cifar100": 32,
    "stl10": 96,
    "imagenet": 224,
    "imagenet100": 224,
    "custom": 224,
}
# Our linear configs for the data sets that solo-learn knows by name; other images use the digits' config.
LINEAR_CONFIGS = {
    **{"cifar10": "cifar", "cifar100": "cifar"},
    **{"imagenet": "imagenet", "imagenet100": "imagenet100"},
}


@dataclass(frozen=True)
class Run:
    """A pretraining run, loaded from its folder."""

    folder: Path
    checkpoint: Path
    settings: DictConfig
    method: Any


class Host(ABC):
    """The interface to one solo-learn: its classes, and how to build methods, data, trainers and probes.

    Attributes:
        generation: ``"current"`` or ``"published"``.
        loaders: solo-learn's package with the loaders of data.
        encoder: The attribute of a method that is its backbone.
        methods: solo-learn's own table ``METHODS``, changed in place by the registration.
        own_methods: The names that the table had before the registration.
        pl: The Lightning that this solo-learn uses.
        base_method, momentum_method: solo-learn's base classes.
        Method: The base class for methods that are written once for both solo-learns.
    """

    generation: str
    loaders: str
    encoder: str

    def __init__(self) -> None:
        from solo.methods import METHODS
        from solo.methods.base import BaseMethod, BaseMomentumMethod, pl

        self.methods: dict[str, type] = METHODS
        self.own_methods = frozenset(METHODS) - {"base", "linear"}
        self.base_method: Any = BaseMethod
        self.momentum_method: Any = BaseMomentumMethod
        self.pl = pl
        self.Method = mixed_in(Method, BaseMethod, host=self)

    @staticmethod
    @abstractmethod
    def read_block(args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> Mapping[str, Any] | None:
        """Return a block of settings from the arguments of a method's constructor, as plain containers."""

    @staticmethod
    @abstractmethod
    def write_block(
        args: tuple[Any, ...], kwargs: dict[str, Any], name: str, block: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the keyword arguments of a method's constructor with a block of settings put in."""

    def without_labels(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Return whether the arguments of a method's constructor ask for images without labels."""
        data = self.read_block(args, kwargs, "data") or kwargs  # in 1.0.2 each setting is an argument itself
        return bool(data.get("no_labels", False))

    @abstractmethod
    def initialize(self, method: Any, init: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run ``init``, the constructor of solo-learn's base class, with any of our backbones."""

    @abstractmethod
    def add_backbones(self) -> None:
        """Add timm's and the plugins' backbones to solo-learn's table, where it has one."""

    @abstractmethod
    def pretraining_arguments(self, settings: DictConfig) -> Any:
        """Return a config with solo-learn's own defaults, checks and scaling applied."""

    @abstractmethod
    def build_method(self, arguments: Any) -> Any:
        """Return the method, ready to train."""

    @abstractmethod
    def training_data(self, arguments: Any) -> dict[str, Any]:
        """Return the training data as keyword arguments of ``Trainer.fit``."""

    @abstractmethod
    def evaluation_folders(self, data: DictConfig) -> dict[str, Any]:
        """Return the folders of labelled images as solo-learn's ``prepare_datasets`` takes them."""

    def evaluation_datasets(
        self, data: DictConfig, train_transform: Callable, val_transform: Callable
    ) -> tuple[Dataset, Dataset]:
        """Return labelled training and validation sets, made by solo-learn's ``prepare_datasets``."""
        folders = self.evaluation_folders(data)
        return self._labelled.prepare_datasets(data.dataset, train_transform, val_transform, **folders)

    def evaluation_transforms(self, dataset: str) -> tuple[Callable, Callable]:
        """Return solo-learn's own transforms for the linear evaluation of a data set."""
        return self._labelled.prepare_transforms(dataset)

    def whole_image(self, settings: DictConfig) -> Callable:
        """Return the transform of a whole image, resized to the crops of a pretraining and normalized."""
        from torchvision import transforms

        view, dataset = settings.augmentations[0], settings.data.dataset
        if dataset == "custom":
            from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

            mean, std = view.get("mean", IMAGENET_DEFAULT_MEAN), view.get("std", IMAGENET_DEFAULT_STD)
            normalize = transforms.Normalize(plain(mean), plain(std))
        else:
            normalize = self.evaluation_transforms(dataset)[1].transforms[-1]  # type: ignore[attr-defined]
        size = view.crop_size
        return transforms.Compose(
            [transforms.Resize(size), transforms.CenterCrop(size), transforms.ToTensor(), normalize]
        )

    def evaluation_loaders(
        self, train: Dataset, val: Dataset, batch_size: int, num_workers: int
    ) -> tuple[DataLoader, DataLoader]:
        """Return solo-learn's loaders for the two sets."""
        return self._labelled.prepare_dataloaders(train, val, batch_size=batch_size, num_workers=num_workers)

    @property
    def _labelled(self) -> Any:
        return importlib.import_module(f"{self.loaders}.classification_dataloader")

    @abstractmethod
    def checkpointer(self, arguments: Any, folder: Path) -> Any:
        """Return solo-learn's callback that writes the checkpoints and ``args.json``."""

    def trainer_settings(self, settings: DictConfig) -> dict[str, Any]:
        """Return the config's trainer settings in the spelling of this Lightning."""
        valid = inspect.signature(self.pl.Trainer.__init__).parameters
        return {name: value for name, value in plain(settings).items() if name in valid}

    @staticmethod
    @abstractmethod
    def momentum_steps(trainer: Any) -> tuple[int, int]:
        """Return the finished and the total number of steps from which this solo-learn computes tau."""

    @abstractmethod
    def build_probe(self, backbone: nn.Module, settings: DictConfig, num_classes: int) -> Any:
        """Return solo-learn's linear evaluation on a frozen backbone."""

    @abstractmethod
    def bare_backbone(self, name: str, method: str | None, kwargs: Mapping[str, Any]) -> nn.Module:
        """Return the backbone that its constructor builds from a name and ``backbone.kwargs``."""

    def backbone(self, method: Any) -> nn.Module:
        """Return the encoder inside a method."""
        return getattr(method, self.encoder)

    @abstractmethod
    def draw_umap(self, backbone: nn.Module, loader: DataLoader, device: str, path: Path) -> None:
        """Save solo-learn's UMAP plot of the features of labelled images as a PNG file.

        This needs the extra umap.
        """

    def settings_of(self, arguments: dict[str, Any]) -> DictConfig:
        """Return the config of a run from its ``args.json``."""
        return OmegaConf.create(arguments.get("config", arguments))

    @abstractmethod
    def rebuild(self, arguments: dict[str, Any]) -> Any:
        """Return the method of a run from its ``args.json``, with fresh weights."""

    def config_keys(self) -> set[str]:
        """Return the dotted keys of a config that this solo-learn or its Lightning's trainer reads."""
        return set(inspect.signature(self.pl.Trainer.__init__).parameters) - {"self"}

    @abstractmethod
    def method_options(self, name: str) -> dict[str, Any]:
        """Return the keys of ``method_kwargs`` that a method of solo-learn's reads, with their defaults."""

    @property
    def trainable(self) -> list[str]:
        """Return the names of the methods that can be pretrained, without solo-learn's base and probe."""
        return sorted(set(self.methods) - {"base", "linear"})

    def config_folders(self) -> list[Path]:
        """Return solo-learn's own folders of pretraining configs, which lie beside the package in a clone."""
        package = Path(inspect.getfile(self.base_method)).parents[1]
        return sorted(each for each in package.parent.glob("scripts/pretrain/*") if each.is_dir())

    def terms(self, method: str, block: Mapping[str, Any]) -> dict[str, Any]:
        """Return the regularizers of a ``regularizers:`` block together with the method's own."""
        complete = getattr(self.methods[method], "with_term", dict)
        return complete(block)

    def config_of(self, method: Any) -> DictConfig | None:
        """Return the config from which a method was built; return None if it was built without one."""
        return getattr(method, "cfg" if self.generation == "current" else "settings", None)

    def seed(self, seed: int) -> None:
        """Seed every generator as solo-learn's scripts do, without Lightning's log line."""
        with without_logs():
            self.pl.seed_everything(seed)

    def build_without_data(self, settings: DictConfig, classes: int) -> Any:
        """Return the method of a config whose images may be elsewhere.

        solo-learn counts the folders of the classes, so empty folders stand in for them.
        """
        settings = OmegaConf.create(plain(settings))
        with tempfile.TemporaryDirectory() as folder:
            for number in range(classes):
                Path(folder, str(number)).mkdir()
            settings.data.train_path = folder
            return self.build_method(self.pretraining_arguments(settings))

    def knn(self, k: int, temperature: float, distance: str) -> Any:
        """Return solo-learn's weighted k-NN classifier."""
        from solo.utils.knn import WeightedKNNClassifier

        return WeightedKNNClassifier(k=k, T=temperature, distance_fx=distance)

    def read_run(self, path: Path) -> Run:
        """Return the pretraining run in a folder, also one of the other solo-learn.

        Args:
            path: A checkpoint folder of solo-learn's, or a ``.ckpt`` file in it.

        Raises:
            ConfigError: There is no such run, or its weights do not fit its ``args.json``.
        """
        folder, checkpoint = find_checkpoint(path)
        arguments = read_object(folder / "args.json", "the settings of a run")
        name, made_by = arguments.get("method"), generation_of(arguments)
        if name not in self.trainable:
            raise ConfigError(f"{folder / 'args.json'}: {unknown('method', str(name), self.trainable)}")
        state = read_checkpoint(checkpoint)["state_dict"]
        try:
            settings = self.settings_of(arguments)
            if made_by == self.generation:
                method = self.rebuild(arguments)
            else:
                method = self.build_without_data(settings, len(state.get("classifier.bias", [0])))
        except DimregError:
            raise
        except Exception as error:
            raise ConfigError(
                f"{folder / 'args.json'}: is not a record of a {name} that this solo-learn "
                f"({self.generation}) can read; the {made_by} one wrote it "
                f"({type(error).__name__}: {first_line(error)})."
            ) from error
        try:
            encoders, ours = re.compile(r"^(momentum_)?(encoder|backbone)\."), rf"\g<1>{self.encoder}."
            method.load_state_dict({encoders.sub(ours, key): value for key, value in state.items()})
        except Exception as error:
            lines = str(error).strip().splitlines()
            reason = lines[1].strip() if len(lines) > 1 else first_line(error)
            raise ConfigError(
                f"{checkpoint}: is not an intact checkpoint of the {name} that args.json beside it describes "
                f"({type(error).__name__}: {reason[:200]})."
            ) from error
        return Run(folder, checkpoint, settings, method.eval())
