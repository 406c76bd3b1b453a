"""The host of the current solo-learn, as cloned from GitHub: Hydra configs, ``METHODS[name](cfg)``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

from omegaconf import DictConfig, OmegaConf, open_dict
from torch import channels_last, nn
from torch.utils.data import DataLoader

from solo_dimreg.config.values import REQUIRED, base_name, device_count, plain
from solo_dimreg.errors import ConfigError, PluginError
from solo_dimreg.plugins import registered
from solo_dimreg.solo_learn.backbone import (
    PREFIX,
    build_backbone,
    check_backbone_name,
    input_size_kwargs,
    naming_refused_kwargs,
    timm_names,
)
from solo_dimreg.solo_learn.base import Host


def _build_own(build: Callable, method: str | None, *args: Any, **kwargs: Any) -> nn.Module:
    return build(base_name(method) if method else method, *args, **kwargs)


def _build_other(name: str, method: str | None, **kwargs: Any) -> nn.Module:
    if method and base_name(method) == "mae":
        raise ConfigError(f"backbone.name: {name!r} is not allowed for MAE, which needs solo-learn's ViT.")
    return build_backbone(name, {key: plain(value) for key, value in kwargs.items()})


def _config(args: tuple[Any, ...], kwargs: dict[str, Any]) -> DictConfig:
    return kwargs["cfg"] if "cfg" in kwargs else args[0]


def _parse(parse_cfg: Callable[[DictConfig], DictConfig], settings: DictConfig) -> DictConfig:
    """Return the settings after solo-learn's parser, with learning rates scaled by the number of devices.

    The parser scales by ``len(cfg.devices)``, so it is given a list.
    """
    cfg = OmegaConf.create(plain(settings))
    cfg.devices = list(range(device_count(settings.devices)))
    cfg = parse_cfg(cfg)
    cfg.devices = plain(settings.devices)
    return cfg


def _laid_out(module: nn.Module, cfg: DictConfig) -> nn.Module:
    """Return a module with the memory layout of solo-learn's scripts."""
    from solo.utils.misc import make_contiguous

    make_contiguous(module)
    return module if cfg.performance.disable_channel_last else module.to(memory_format=channels_last)


# A config that solo-learn's parsers complete, to learn which keys they read.
SMALLEST = {
    "method": "simclr",
    "backbone": {"name": "resnet18"},
    "data": {"dataset": "cifar10", "train_path": ".", "val_path": "."},
    "augmentations": [{"crop_size": 32, "num_crops": 2}],
    "optimizer": {"name": "sgd", "batch_size": 2, "lr": 0.1, "classifier_lr": 0.1},
    "devices": [0],
    **{name: {} for name in ("scheduler", "momentum", "method_kwargs", "checkpoint", "auto_resume")},
}


def _complete(parse: Callable[[DictConfig], DictConfig]) -> tuple[DictConfig, set[str], bool]:
    """Return the smallest config after a parser, the dotted keys that it requires, and whether it ended."""
    required: set[str] = set()

    def is_missing(_: DictConfig, key: str) -> bool:
        required.add(key)
        return False

    config = OmegaConf.create(SMALLEST)
    whole = False
    # A fork or a plugin may refuse what a config so small lacks; what it has filled in by then is known.
    with mock.patch.object(OmegaConf, "is_missing", is_missing), suppress(Exception):
        config = parse(config)
        whole = True
    return config, required, whole


def _keys(block: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in block.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{name}.")


class CurrentHost(Host):
    """The host for the ``main`` branch of solo-learn on GitHub."""

    generation = "current"
    loaders = "solo.data"
    encoder = "backbone"

    @staticmethod
    def read_block(args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> Mapping[str, Any] | None:
        return plain(_config(args, kwargs).get(name))

    @staticmethod
    def write_block(
        args: tuple[Any, ...], kwargs: dict[str, Any], name: str, block: Mapping[str, Any]
    ) -> dict[str, Any]:
        cfg = _config(args, kwargs)
        with open_dict(cfg):
            cfg[name] = block
        return kwargs

    def initialize(self, method: Any, init: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        cfg = _config(args, kwargs)
        backbones = self.base_method._BACKBONES
        check_backbone_name(cfg.backbone.name, [name for name in backbones if not name.startswith(PREFIX)])
        if "augmentations" in cfg and cfg.backbone.get("kwargs", {}).get("img_size") is None:
            fixed = input_size_kwargs(cfg.backbone.name, cfg.augmentations[0].crop_size)
            if fixed:
                with open_dict(cfg):
                    cfg.backbone.kwargs = {**(plain(cfg.backbone.get("kwargs")) or {}), **fixed}
        with naming_refused_kwargs(cfg.backbone.name, plain(cfg.backbone.get("kwargs")) or {}):
            init(*args, **kwargs)

    def add_backbones(self) -> None:
        # solo-learn's ViTs choose their variant by the method's name, so they must see ldreg_mae as mae.
        backbones = self.base_method._BACKBONES
        for name, build in list(backbones.items()):
            backbones[name] = functools.partial(_build_own, build)
        for name in (*timm_names(), *registered("backbones")):
            if name in backbones or name.startswith("resnet"):
                package = registered("backbones")[name].distribution
                raise PluginError(
                    f"{package} registers the backbone {name!r}, a name that solo-learn takes for its own. "
                    "Uninstall or fix that package."
                )
            backbones[name] = functools.partial(_build_other, name)

    def config_keys(self) -> set[str]:
        from solo.args import linear, pretrain

        keys = super().config_keys()
        for parse in (
            pretrain.parse_cfg,
            linear.parse_cfg,
            self.momentum_method.add_and_assert_specific_cfg,  # type: ignore[attr-defined]
        ):
            completed, required, _ = _complete(parse)
            keys |= required | {*_keys(plain(completed))}
        return keys

    def method_options(self, name: str) -> dict[str, Any]:
        method: Any = self.methods[name]
        completed, required, whole = _complete(method.add_and_assert_specific_cfg)
        if not whole:
            return {}
        block = "method_kwargs."
        options = {each.removeprefix(block): REQUIRED for each in required if each.startswith(block)}
        return dict(sorted((options | plain(completed.method_kwargs)).items()))

    def pretraining_arguments(self, settings: DictConfig) -> DictConfig:
        from solo.args.pretrain import parse_cfg

        return _parse(parse_cfg, settings)

    def build_method(self, arguments: DictConfig) -> Any:
        return _laid_out(self.methods[arguments.method](arguments), arguments)

    def training_data(self, arguments: DictConfig) -> dict[str, Any]:
        from solo.data import pretrain_dataloader as data

        dali = arguments.data.format == "dali"
        if dali:
            from solo.data.dali_dataloader import PretrainDALIDataModule, build_transform_pipeline_dali

            def build(dataset: str, augmentation: DictConfig) -> Callable:
                return build_transform_pipeline_dali(dataset, augmentation, dali_device=arguments.dali.device)
        else:
            build = data.build_transform_pipeline
        transform = data.FullTransformPipeline(
            [
                data.NCropAugmentation(build(arguments.data.dataset, augmentation), augmentation.num_crops)
                for augmentation in arguments.augmentations
            ]
        )
        if dali:
            module = PretrainDALIDataModule(
                dataset=arguments.data.dataset,
                train_data_path=arguments.data.train_path,
                transforms=transform,
                num_large_crops=arguments.data.num_large_crops,
                num_small_crops=arguments.data.num_small_crops,
                num_workers=arguments.data.num_workers,
                batch_size=arguments.optimizer.batch_size,
                no_labels=arguments.data.no_labels,
                data_fraction=arguments.data.fraction,
                dali_device=arguments.dali.device,
                encode_indexes_into_labels=arguments.dali.encode_indexes_into_labels,
            )
            return {"datamodule": module}
        dataset = data.prepare_datasets(
            arguments.data.dataset,
            transform,
            train_data_path=arguments.data.train_path,
            data_format=arguments.data.format,
            no_labels=arguments.data.no_labels,
            data_fraction=arguments.data.fraction,
        )
        loader = data.prepare_dataloader(
            dataset, batch_size=arguments.optimizer.batch_size, num_workers=arguments.data.num_workers
        )
        return {"train_dataloaders": loader}

    def evaluation_folders(self, data: DictConfig) -> dict[str, Any]:
        data_format = data.get("format", "image_folder")
        data_format = "image_folder" if data_format == "dali" else data_format
        paths = {"train_data_path": data.train_path, "val_data_path": data.val_path}
        return {**paths, "data_format": data_format}

    def checkpointer(self, arguments: DictConfig, folder: Path) -> Any:
        from solo.utils.checkpointer import Checkpointer

        settings = arguments.checkpoint
        return Checkpointer(
            arguments, logdir=folder, frequency=settings.frequency, keep_prev=settings.keep_prev
        )

    def trainer_settings(self, settings: DictConfig) -> dict[str, Any]:
        chosen = super().trainer_settings(settings)
        if chosen.get("strategy") == "ddp":
            chosen["strategy"] = self.pl.strategies.DDPStrategy(find_unused_parameters=False)
        return chosen

    @staticmethod
    def momentum_steps(trainer: Any) -> tuple[int, int]:
        return trainer.global_step, trainer.estimated_stepping_batches

    def build_probe(self, backbone: nn.Module, settings: DictConfig, num_classes: int) -> Any:
        from solo.args.linear import parse_cfg
        from solo.methods.linear import LinearModel

        cfg = _parse(parse_cfg, settings)
        cfg.data.num_classes = num_classes
        loss = nn.CrossEntropyLoss(label_smoothing=cfg.label_smoothing)
        return _laid_out(LinearModel(backbone, cfg=cfg, loss_func=loss), cfg)

    def bare_backbone(self, name: str, method: str | None, kwargs: Mapping[str, Any]) -> nn.Module:
        return self.base_method._BACKBONES[name](method, **kwargs)

    def draw_umap(self, backbone: nn.Module, loader: DataLoader, device: str, path: Path) -> None:
        from solo.utils.auto_umap import OfflineUMAP

        OfflineUMAP().plot(device, backbone, loader, str(path))

    def rebuild(self, arguments: dict[str, Any]) -> Any:
        # Keep the memory layout of the training: another layout rounds differently.
        return self.build_method(OmegaConf.create(arguments))
