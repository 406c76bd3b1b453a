"""The types, ranges and names of all settings in a config, ours and solo-learn's."""

from __future__ import annotations

import inspect
import sys
from typing import Annotated, Any, Literal

import torch
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from solo_dimreg.config.blocks import ClassifierSettings, OwnBlocks
from solo_dimreg.config.parsing import Block, Refusal, check_keys, mapping, one_of, whole
from solo_dimreg.config.values import device_count

TORCH_OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
# LARS is solo-learn's own, with the same options in both of them.
LARS_OPTIONS = ("momentum", "eta", "clip_lr", "exclude_bias_n_norm", "eps", "dampening", "nesterov")
# In bytes: a checkpoint adds version and epoch to the name, and file names have at most 255 bytes.
LONGEST_NAME = 200

Count = Annotated[int, whole(1)]
Whole = Annotated[int, whole(0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Part = Annotated[float, Field(gt=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]


def _batches(least: int) -> BeforeValidator:
    """Return a validator for a number of batches or a part of all batches."""

    def check(value: Any) -> Any:
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
        if not whole and not (isinstance(value, float) and min(least, 1e-9) <= value <= 1):
            raise ValueError(f"a whole number >= {least} or a part of all batches, up to 1.0")
        return value

    return BeforeValidator(check)


TrainBatches = Annotated[int | float, _batches(1)]
Batches = Annotated[int | float, _batches(0)]
Options = dict[str, Any] | None

Accelerator = Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu", "hpu", "ipu"]
# fmt: off
Precision = Literal[
    16, 32, 64, "16", "32", "64", "bf16", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "32-true",
    "64-true", "transformer-engine", "transformer-engine-float16",
]
# fmt: on


def _known_strategy(name: str) -> str:
    """Return the name of a strategy, if the Lightning in use has registered it."""
    known = {"auto"}
    for lightning in ("lightning.pytorch", "pytorch_lightning"):
        registry = getattr(sys.modules.get(f"{lightning}.strategies"), "StrategyRegistry", None)
        known.update(registry.available_strategies() if registry is not None else ())
    if name not in known:
        raise ValueError(", ".join(map(repr, sorted(known))))
    return name


Strategy = Annotated[str, AfterValidator(_known_strategy)]


def _usable_devices(devices: Any) -> Any:
    try:
        numbers = [int(part) for part in devices] if isinstance(devices, list) else []
        usable = (
            device_count(devices) >= 1 and len({*numbers}) == len(numbers) and min(numbers, default=0) >= 0
        )
    except (TypeError, ValueError):
        usable = False
    if not usable or isinstance(devices, bool | dict):
        raise ValueError("a number >= 1 or a list of numbers")
    return devices


class TrainerSettings(Block):
    """The settings that solo-learn passes to the trainer; its other parameters are not checked."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    max_epochs: Count
    devices: Annotated[Any, AfterValidator(_usable_devices)]
    num_nodes: Count = 1
    accelerator: Accelerator | None = "auto"
    strategy: Strategy | None = None
    precision: Precision | None = 32
    sync_batchnorm: bool = False
    accumulate_grad_batches: Count | None = None
    gradient_clip_val: NotNegative | None = None
    limit_train_batches: TrainBatches | None = None
    limit_val_batches: Batches | None = None
    check_val_every_n_epoch: Count | None = None
    log_every_n_steps: Whole | None = 50
    max_steps: int = -1
    min_epochs: Whole | None = None
    max_time: str | dict[str, int] | None = None
    overfit_batches: Batches = 0.0
    val_check_interval: TrainBatches | None = None
    num_sanity_val_steps: Annotated[int | None, Field(ge=-1)] = None
    fast_dev_run: bool | Whole = False
    benchmark: bool | None = None
    deterministic: bool | Literal["warn"] | None = None
    detect_anomaly: bool = False
    profiler: Literal["simple", "advanced", "pytorch", "xla"] | None = None
    gradient_clip_algorithm: Literal["norm", "value"] | None = None
    reload_dataloaders_every_n_epochs: Whole = 0
    enable_progress_bar: bool | None = None
    enable_model_summary: bool | None = None
    inference_mode: bool = True

    @field_validator("max_steps")
    @classmethod
    def _some(cls, value: int) -> int:
        if value != -1 and value < 1:
            raise ValueError("a whole number >= 1, or -1 for as many as max_epochs give")
        return value


class Chance(Block):
    """An augmentation with a probability; solo-learn's configs may have an ``enabled`` without effect."""

    enabled: bool = True
    prob: Share = 0.0


class ColorJitter(Chance):
    """The settings of torchvision's ``ColorJitter``."""

    brightness: NotNegative = 0.0
    contrast: NotNegative = 0.0
    saturation: NotNegative = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0


class RandomResizedCrop(Block):
    """The settings of torchvision's ``RandomResizedCrop``."""

    enabled: bool = True
    crop_min_scale: Part = 0.08
    crop_max_scale: Part = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> RandomResizedCrop:
        if self.crop_min_scale > self.crop_max_scale:
            raise ValueError("such that crop_min_scale <= crop_max_scale")
        return self


class View(Block):
    """A kind of crop."""

    crop_size: Annotated[int, Field(ge=1, le=4096)]
    num_crops: Count
    rrc: RandomResizedCrop
    color_jitter: ColorJitter
    grayscale: Chance
    gaussian_blur: Chance
    solarization: Chance
    equalization: Chance | None = None
    horizontal_flip: Chance
    mean: Annotated[list[Finite], Field(min_length=3, max_length=3, default_factory=list)]
    std: Annotated[list[Positive], Field(min_length=3, max_length=3, default_factory=list)]


class Backbone(Block):
    """The ``backbone:`` block."""

    name: str
    kwargs: Options = None


class Data(Block):
    """The ``data:`` block."""

    dataset: str
    train_path: str
    val_path: str | None = None
    format: str | None = None
    num_workers: Annotated[int, Field(ge=0, le=1024)]
    no_labels: bool = False
    fraction: float = -1
    augmentations: Options = None
    check: bool = False

    @field_validator("fraction")
    @classmethod
    def _share(cls, value: float) -> float:
        if value != -1 and not 0 < value < 1:
            raise ValueError("above 0 and below 1, or -1 for all images")
        return value


class OptimizerOptions(Block):
    """The further options of the optimizers, with the ranges in which they are defined."""

    model_config = ConfigDict(extra="allow")  # torch's optimizers may have more

    momentum: BelowOne = 0.0
    dampening: Share = 0.0
    nesterov: bool = False
    eta: Positive = 1e-3
    clip_lr: bool = False
    exclude_bias_n_norm: bool = False
    eps: NotNegative = 1e-8
    betas: Annotated[list[BelowOne], Field(min_length=2, max_length=2, default_factory=list)]
    amsgrad: bool = False
    decoupled_weight_decay: bool = False
    maximize: bool = False
    foreach: bool | None = None
    fused: bool | None = None
    capturable: bool = False
    differentiable: bool = False


class Optimizer(Block):
    """The ``optimizer:`` block of the pretraining and of the probe."""

    name: Annotated[str, one_of("name", (*TORCH_OPTIMIZERS, "lars"))]
    batch_size: Count
    lr: NotNegative
    classifier_lr: NotNegative = 0.0
    weight_decay: NotNegative
    exclude_bias_n_norm_wd: bool = False
    kwargs: Annotated[OptimizerOptions, Field(default_factory=OptimizerOptions)]
    layer_decay: NotNegative = 0.0

    @model_validator(mode="after")
    def _takes_its_options(self) -> Optimizer:
        valid = set(LARS_OPTIONS)
        if self.name in TORCH_OPTIMIZERS:
            valid = {*inspect.signature(TORCH_OPTIMIZERS[self.name]).parameters}
            valid -= {"params", "lr", "weight_decay"}
        check_keys("optimizer.kwargs", self.options, valid, owner=self.name)
        return self

    @property
    def options(self) -> dict[str, Any]:
        """Return the options that the config gives."""
        return self.kwargs.model_dump(exclude_unset=True)


class Scheduler(Block):
    """The ``scheduler:`` block: the schedule of the learning rate."""

    name: Annotated[str, one_of("name", ("warmup_cosine", "step", "none"))]
    warmup_epochs: NotNegative = 10
    warmup_start_lr: NotNegative = 3e-5
    min_lr: NotNegative = 0.0
    lr_decay_steps: list[Whole] | None = None
    interval: Literal["step", "epoch"] = "step"


class Momentum(Block):
    """The ``momentum:`` block: the momentum encoder."""

    base_tau: Share = 0.99
    final_tau: Share = 1.0
    classifier: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Momentum:
        if self.base_tau > self.final_tau:
            raise ValueError("such that base_tau <= final_tau")
        return self


class Checkpoint(Block):
    """The ``checkpoint:`` block: whether, where and when checkpoints are saved."""

    enabled: bool = False
    dir: str = "trained_models"
    frequency: Count = 1
    keep_prev: bool = False


class AutoResume(Block):
    """The ``auto_resume:`` block: whether an interrupted run is resumed."""

    enabled: bool = False
    max_hours: Positive = 36


class Wandb(Block):
    """The ``wandb:`` block: logging to Weights & Biases."""

    enabled: bool = False
    entity: str | None = None
    project: str | None = None
    offline: bool = False


class KnnEval(Block):
    """The ``knn_eval:`` block: solo-learn's online k-NN."""

    enabled: bool = False
    k: Count = 20
    distance_func: Literal["euclidean", "cosine"] = "euclidean"


class AutoUmap(Block):
    """The ``auto_umap:`` block: solo-learn's plot of the features."""

    enabled: bool = False
    dir: str | None = None
    frequency: Count = 1


class Performance(Block):
    """The ``performance:`` block of the current solo-learn."""

    disable_channel_last: bool = False


class Dali(Block):
    """The ``dali:`` block: the GPU pipeline."""

    device: Literal["cpu", "gpu"] = "gpu"
    encode_indexes_into_labels: bool = False


def _names_files(name: str) -> str:
    if "/" in name or name in (".", "..") or not name.isprintable() or len(name.encode()) > LONGEST_NAME:
        raise Refusal(
            f"{name!r} is not allowed; it names files, so it must be without '/' and at most "
            f"{LONGEST_NAME} bytes of printable characters."
        )
    return name


Name = Annotated[str, AfterValidator(_names_files)]


class Common(TrainerSettings):
    """The settings that a pretraining and a linear config share, with the trainer's own settings."""

    name: Name = ""
    method: str = ""
    backbone: Backbone
    data: Data
    optimizer: Optimizer
    scheduler: Scheduler
    checkpoint: Checkpoint = Checkpoint()
    auto_resume: AutoResume = AutoResume()
    wandb: Wandb = Wandb()
    performance: Performance = Performance()
    dali: Dali | None = None
    auto_umap: AutoUmap | None = None
    resume_from_checkpoint: str | None = None
    debug_augmentations: bool = False
    extra_keys: Annotated[list[str], Field(default_factory=list)]


class Pretraining(Common, OwnBlocks):
    """The settings of a pretraining."""

    name: Name
    method: str
    augmentations: Annotated[list[View], Field(min_length=1)]
    method_kwargs: Annotated[dict[str, Any], Field(default_factory=dict)]
    momentum: Momentum = Momentum()
    knn_eval: KnnEval = KnnEval()


class Linear(Common):
    """A config of the linear evaluation."""

    pretrained_feature_extractor: str | None = None
    pretrain_method: str | None = None
    finetune: bool = False
    auto_augment: bool = False
    label_smoothing: Share = 0.0
    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0
    classifier: Annotated[ClassifierSettings | None, mapping("{normalization: bn}")] = None
