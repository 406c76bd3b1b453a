"""The host of the published solo-learn 1.0.2 (package index): argparse, ``METHODS[name](**kwargs)``."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import channels_last, nn
from torch.utils.data import DataLoader

from solo_dimreg.config.values import OWN_BLOCKS, REQUIRED, device_count, plain
from solo_dimreg.errors import ConfigError, PluginError
from solo_dimreg.plugins import registered
from solo_dimreg.solo_learn.backbone import (
    build_backbone,
    check_backbone_name,
    find_backbone,
    naming_refused_kwargs,
)
from solo_dimreg.solo_learn.base import Host
from solo_dimreg.solo_learn.published_arguments import (
    PRECISIONS,
    backbone_settings,
    count_classes,
    optimizer_settings,
    scheduler_settings,
    settings_of_script,
    transform_settings,
)
from solo_dimreg.solo_learn.published_fixes import ProbeOptimizers, Schedules, TrainersClipping, WithFeatures


class PublishedHost(Host):
    """The host for solo-learn 1.0.2 from the package index."""

    generation = "published"
    loaders = "solo.utils"
    encoder = "encoder"

    @staticmethod
    def read_block(args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> Mapping[str, Any] | None:
        return plain(kwargs.get(name))

    @staticmethod
    def write_block(
        args: tuple[Any, ...], kwargs: dict[str, Any], name: str, block: Mapping[str, Any]
    ) -> dict[str, Any]:
        return {**kwargs, name: block}

    def initialize(self, method: Any, init: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        name = kwargs["encoder"]
        check_backbone_name(name, self.base_method._SUPPORTED_ENCODERS)
        if find_backbone(name) is None:
            with naming_refused_kwargs(name, kwargs["backbone_args"]):
                init(*args, **kwargs)
            return
        # The constructor accepts only its own encoders: it builds one of them, which is then replaced.
        init(*args, **{**kwargs, "encoder": "resnet18", "backbone_args": {}})
        options = {key: value for key, value in kwargs["backbone_args"].items() if key != "cifar"}
        method.encoder_name, method.encoder = name, build_backbone(name, options)
        method.features_dim = method.encoder.num_features
        method.classifier = nn.Linear(method.features_dim, method.num_classes)
        if issubclass(type(method), self.momentum_method):
            from solo.utils.momentum import initialize_momentum_params

            method.momentum_encoder = build_backbone(name, options)
            initialize_momentum_params(method.encoder, method.momentum_encoder)
            if method.momentum_classifier is not None:
                method.momentum_classifier = nn.Linear(method.features_dim, method.num_classes)

    def add_backbones(self) -> None:
        # 1.0.2 has no table, and initialize() inserts the backbones: only the names have to be free.
        for name, backbone in registered("backbones").items():
            if name in self.base_method._SUPPORTED_ENCODERS:
                raise PluginError(
                    f"{backbone.distribution} registers the backbone {name!r}, a name of solo-learn's "
                    "own. Uninstall or fix that package."
                )

    def _method_settings(self, method: Any, settings: DictConfig) -> dict[str, Any]:
        """Return the defaults of a method's parser, updated by ``method_kwargs`` and ``momentum``."""
        parser = argparse.ArgumentParser()
        method.add_model_specific_args(parser)
        defaults = vars(parser.parse_known_args(["--optimizer", "sgd"])[0])
        block = plain(settings.get("method_kwargs", {})) or {}
        if issubclass(method, self.Method):
            return {**defaults, "method_kwargs": block}
        base_parser = argparse.ArgumentParser()
        self.momentum_method.add_model_specific_args(base_parser)
        shared = {action.dest for action in base_parser._actions}
        unread = sorted(set(block) - (set(defaults) - shared))
        if unread:  # solo-learn's own configs have keys that only the current one reads, or none
            print(f"method_kwargs: solo-learn 1.0.2 does not read {', '.join(unread)} of {settings.method}.")
            block = {key: value for key, value in block.items() if key not in unread}
        momentum = plain(settings.get("momentum", {})) or {}
        if issubclass(method, self.momentum_method):
            names = {
                "base_tau": "base_tau_momentum",
                "final_tau": "final_tau_momentum",
                "classifier": "momentum_classifier",
            }
            defaults.update({theirs: momentum[ours] for ours, theirs in names.items() if ours in momentum})
        return {**defaults, **block}

    def method_options(self, name: str) -> dict[str, Any]:
        kind: Any = self.methods[name]
        parser = argparse.ArgumentParser()
        kind.add_model_specific_args(parser)
        names: set[str] = set()
        for each in kind.__mro__:
            if each.__module__.startswith("solo.") and each not in (self.base_method, self.momentum_method):
                names |= set(inspect.signature(each.__init__).parameters) - {"self", "args", "kwargs"}
        defaults = {each: parser.get_default(each) for each in sorted(names)}
        return {each: REQUIRED if value is None else value for each, value in defaults.items()}

    def pretraining_arguments(self, settings: DictConfig) -> dict[str, Any]:
        if (settings.data.get("fraction") or -1) > 0:
            raise ConfigError(f"data.fraction: {settings.data.fraction} needs the current solo-learn.")
        if settings.data.get("format") == "h5":
            raise ConfigError("data.format: 'h5' needs the current solo-learn; use image_folder.")
        data, augmentations = settings.data, settings.augmentations
        processes = device_count(settings.devices) * settings.get("num_nodes", 1)
        scale = settings.optimizer.batch_size * processes / 256
        transforms = [transform_settings(data.dataset, augmentation) for augmentation in augmentations]
        large = [a.num_crops for a in augmentations if a.crop_size == augmentations[0].crop_size]
        arguments = {
            **self._method_settings(self.methods[settings.method], settings),
            **backbone_settings(settings),
            **optimizer_settings(settings.optimizer, scale),
            **scheduler_settings(settings.scheduler),
            "method": settings.method,
            "name": settings.name,
            "dataset": data.dataset,
            "num_classes": count_classes(data.dataset, data.train_path),
            "data_dir": ".",
            "train_dir": data.train_path,
            "val_dir": data.get("val_path"),
            "no_labels": data.get("no_labels", False),
            "num_workers": data.num_workers,
            "dali": data.get("format") == "dali",
            "dali_device": settings.get("dali", {}).get("device", "gpu"),
            "encode_indexes_into_labels": settings.get("dali", {}).get("encode_indexes_into_labels", False),
            "unique_augs": len(transforms),
            "transform_kwargs": transforms if len(transforms) > 1 else transforms[0],
            "num_crops_per_aug": [augmentation.num_crops for augmentation in augmentations],
            "crop_size": [augmentation.crop_size for augmentation in augmentations],
            "num_large_crops": sum(large),
            "num_small_crops": sum(a.num_crops for a in augmentations) - sum(large),
            "max_epochs": settings.max_epochs,
            "accumulate_grad_batches": settings.get("accumulate_grad_batches") or 1,
            "knn_eval": settings.get("knn_eval", {}).get("enabled", False),
            "knn_k": settings.get("knn_eval", {}).get("k", 20),
            "project": settings.get("wandb", {}).get("project"),
            "entity": settings.get("wandb", {}).get("entity"),
            "config": plain(settings),
        }
        for block in OWN_BLOCKS:
            if settings.get(block) is not None:
                arguments[block] = plain(settings[block])
        return arguments

    def build_method(self, arguments: dict[str, Any]) -> Any:
        method = self.methods[arguments["method"]]
        parents: tuple[type, ...] = (Schedules, TrainersClipping, method)
        if arguments["dali"]:
            from solo.methods.dali import PretrainABC

            parents = (PretrainABC, *parents)
        settings = {"settings": OmegaConf.create(arguments["config"])}
        made = type(method.__name__, parents, settings)(**arguments)
        # The current solo-learn does the same, because convolutions are faster in this layout.
        return made.to(memory_format=channels_last)

    def training_data(self, arguments: dict[str, Any]) -> dict[str, Any]:
        from solo.utils import pretrain_dataloader as data

        if arguments["dali"]:
            return {}
        kwargs = arguments["transform_kwargs"]
        kwargs = kwargs if isinstance(kwargs, list) else [kwargs]
        transforms = [data.prepare_transform(arguments["dataset"], **each) for each in kwargs]
        dataset = data.prepare_datasets(
            arguments["dataset"],
            data.prepare_n_crop_transform(transforms, arguments["num_crops_per_aug"]),
            data_dir=Path(arguments["data_dir"]),
            train_dir=arguments["train_dir"],
            no_labels=arguments["no_labels"],
        )
        loader = data.prepare_dataloader(
            dataset, batch_size=arguments["batch_size"], num_workers=arguments["num_workers"]
        )
        return {"train_dataloaders": loader}

    def evaluation_folders(self, data: DictConfig) -> dict[str, Any]:
        return {"data_dir": Path("."), "train_dir": data.train_path, "val_dir": data.val_path}

    def checkpointer(self, arguments: dict[str, Any], folder: Path) -> Any:
        from solo.utils.checkpointer import Checkpointer

        settings = arguments["config"]["checkpoint"]
        return Checkpointer(
            argparse.Namespace(**arguments),
            logdir=folder,
            frequency=settings.get("frequency", 1),
            keep_previous_checkpoints=settings.get("keep_prev", False),
        )

    def trainer_settings(self, settings: DictConfig) -> dict[str, Any]:
        chosen = super().trainer_settings(settings)
        devices = chosen.get("devices")
        if isinstance(devices, str) and "," in devices:
            devices = chosen["devices"] = [int(part) for part in devices.split(",") if part.strip()]
        if not isinstance(devices, list) or chosen.get("accelerator") == "cpu":
            chosen["devices"] = device_count(devices)
        chosen["precision"] = PRECISIONS.get(str(chosen.get("precision", 32)), chosen.get("precision", 32))
        if chosen.get("strategy") == "auto":
            chosen["strategy"] = None
        elif chosen.get("strategy") == "ddp":
            chosen["strategy"] = "ddp_find_unused_parameters_false"
        return chosen

    @staticmethod
    def momentum_steps(trainer: Any) -> tuple[int, int]:
        done = trainer.global_step * trainer.accumulate_grad_batches
        return done, len(trainer.train_dataloader) * trainer.max_epochs

    def build_probe(self, backbone: nn.Module, settings: DictConfig, num_classes: int) -> Any:
        from solo.methods.linear import LinearModel

        if settings.optimizer.name == "adamw":
            raise ConfigError("optimizer.name: 'adamw' needs the current solo-learn; use sgd, lars or adam.")
        scale = settings.optimizer.batch_size * device_count(settings.devices) / 256
        probe = type("LinearModel", (ProbeOptimizers, LinearModel), {"settings": settings})
        return probe(
            backbone,
            num_classes=num_classes,
            max_epochs=settings.max_epochs,
            **optimizer_settings(settings.optimizer, scale),
            **scheduler_settings(settings.scheduler),
        )

    def bare_backbone(self, name: str, method: str | None, kwargs: Mapping[str, Any]) -> nn.Module:
        from solo.utils import backbones
        from torchvision import models

        # 1.0.2 keeps its table of constructors inside of another constructor.
        return (find_backbone(name) or getattr(models if name.startswith("resnet") else backbones, name))(
            **kwargs
        )

    def draw_umap(self, backbone: nn.Module, loader: DataLoader, device: str, path: Path) -> None:
        from solo.utils.auto_umap import AutoUMAP

        # 1.0.2 has the plot only in a callback, which gets what it reads from a trainer and a module.
        callback = AutoUMAP(argparse.Namespace(name=path.stem))
        callback.path, callback.umap_placeholder = path.parent, path.name
        trainer = argparse.Namespace(
            val_dataloaders=[loader], is_global_zero=True, logger=None, current_epoch=0
        )
        callback.plot(trainer, WithFeatures(backbone, device))

    def settings_of(self, arguments: dict[str, Any]) -> DictConfig:
        of_script = "config" not in arguments and "backbone" not in arguments
        return super().settings_of(settings_of_script(arguments) if of_script else arguments)

    def rebuild(self, arguments: dict[str, Any]) -> Any:
        return self.methods[arguments["method"]](**arguments)
