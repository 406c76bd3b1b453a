"""The types, ranges and names of everything that a config may hold, of ours and of solo-learn's."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Part = Annotated[float, Field(gt=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Batches = Annotated[int, Field(ge=0)] | Share  # a number of them, or a part
Options = dict[str, Any] | None

Accelerator = Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu", "hpu", "ipu"]
# fmt: off
Precision = Literal[
    16, 32, 64, "16", "32", "64", "bf16", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "32-true",
    "64-true", "transformer-engine", "transformer-engine-float16",
]
Strategy = Literal[
    "auto", "ddp", "ddp_spawn", "ddp_fork", "ddp_notebook", "dp", "fsdp", "deepspeed", "deepspeed_stage_1",
    "deepspeed_stage_2", "deepspeed_stage_3", "ddp_find_unused_parameters_true",
    "ddp_find_unused_parameters_false", "single_device", "deepspeed_stage_1_offload",
    "deepspeed_stage_2_offload", "deepspeed_stage_3_offload", "deepspeed_stage_3_offload_nvme",
    "fsdp_cpu_offload", "fsdp_native", "ddp_sharded", "ddp_sharded_spawn", "ddp2", "horovod", "bagua",
    "ddp_sharded_find_unused_parameters_false", "model_parallel", "single_xla", "xla", "xla_fsdp",
]
# fmt: on


class Block(BaseModel):
    """A mapping of settings, none of which may be misspelt."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Chance(Block):
    """An augmentation that happens with a probability; solo-learn has configs with an idle ``enabled``."""

    enabled: bool = True
    prob: Share = 0.0


class ColorJitter(Chance):
    """torchvision's ``ColorJitter``."""

    brightness: NotNegative = 0.0
    contrast: NotNegative = 0.0
    saturation: NotNegative = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0


class RandomResizedCrop(Block):
    """torchvision's ``RandomResizedCrop``."""

    enabled: bool = True
    crop_min_scale: Part = 0.08
    crop_max_scale: Part = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> RandomResizedCrop:
        if self.crop_min_scale > self.crop_max_scale:
            raise ValueError("crop_min_scale must not be above crop_max_scale")
        return self


class View(Block):
    """A kind of crop."""

    rrc: RandomResizedCrop | None = None
    color_jitter: ColorJitter | None = None
    grayscale: Chance | None = None
    gaussian_blur: Chance | None = None
    solarization: Chance | None = None
    equalization: Chance | None = None
    horizontal_flip: Chance | None = None
    crop_size: Count
    num_crops: Count
    mean: list[Finite] | None = None
    std: list[Positive] | None = None


class Backbone(Block):
    """The network."""

    name: str
    kwargs: Options = None


class Data(Block):
    """The images."""

    dataset: str
    train_path: str
    val_path: str | None = None
    format: str | None = None
    num_workers: Whole = 4
    no_labels: bool = False
    fraction: Annotated[float, Field(le=1)] = -1
    augmentations: Options = None
    check: bool = False


class Optimizer(Block):
    """The optimizer of the pretraining and of the probe."""

    name: str
    batch_size: Count
    lr: NotNegative
    classifier_lr: NotNegative = 0.0
    weight_decay: NotNegative
    exclude_bias_n_norm_wd: bool = False
    kwargs: Options = None
    layer_decay: NotNegative = 0.0


class OptimizerOptions(Block):
    """What the optimizers take besides, with the ranges in which they are defined."""

    momentum: BelowOne = 0.0
    dampening: Share = 0.0
    nesterov: bool = False
    eta: Positive = 1e-3
    clip_lr: bool = False
    exclude_bias_n_norm: bool = False
    eps: NotNegative = 1e-8
    betas: Annotated[list[BelowOne], Field(min_length=2, max_length=2)] = [0.9, 0.999]
    amsgrad: bool = False
    maximize: bool = False
    foreach: bool | None = None
    fused: bool | None = None
    capturable: bool = False
    differentiable: bool = False


class Scheduler(Block):
    """The schedule of the learning rate."""

    name: str
    warmup_epochs: NotNegative = 10
    warmup_start_lr: NotNegative = 3e-5
    min_lr: NotNegative = 0.0
    lr_decay_steps: list[Whole] | None = None
    interval: Literal["step", "epoch"] = "step"


class Momentum(Block):
    """The momentum encoder."""

    base_tau: Share = 0.99
    final_tau: Share = 1.0
    classifier: bool = False


class Checkpoint(Block):
    """What is saved when."""

    enabled: bool = False
    dir: str = "trained_models"
    frequency: Count = 1
    keep_prev: bool = False


class AutoResume(Block):
    """Whether an interrupted run is looked for."""

    enabled: bool = False
    max_hours: Positive = 36


class Wandb(Block):
    """The logger."""

    enabled: bool = False
    entity: str | None = None
    project: str | None = None
    offline: bool = False


class KnnEval(Block):
    """solo-learn's online k-NN."""

    enabled: bool = False
    k: Count = 20
    distance_func: Literal["euclidean", "cosine"] = "euclidean"


class Performance(Block):
    """Of the current solo-learn."""

    disable_channel_last: bool = False


class Dali(Block):
    """Of the GPU pipeline."""

    device: Literal["cpu", "gpu"] = "gpu"
    encode_indexes_into_labels: bool = False


class Common(Block):
    """What a pretraining and a linear config share; the trainer's own settings are allowed besides."""

    name: str = ""
    method: str = ""
    seed: Whole | None = None
    max_epochs: Count
    devices: Any
    num_nodes: Count = 1
    accelerator: Accelerator | None = "auto"
    strategy: Strategy | None = None
    precision: Precision | None = 32
    sync_batchnorm: bool = False
    accumulate_grad_batches: Count | None = None
    gradient_clip_val: NotNegative | None = None
    limit_train_batches: Batches | None = None
    limit_val_batches: Batches | None = None
    check_val_every_n_epoch: Count | None = None
    log_every_n_steps: Whole | None = 50
    max_steps: Annotated[int, Field(ge=-1)] = -1
    backbone: Backbone
    data: Data
    optimizer: Optimizer
    scheduler: Scheduler
    checkpoint: Checkpoint | None = None
    auto_resume: AutoResume | None = None
    wandb: Wandb | None = None
    performance: Performance | None = None
    dali: Dali | None = None
    auto_umap: Options = None
    resume_from_checkpoint: str | None = None
    debug_augmentations: bool = False
    extra_keys: list[str] = []


class Pretraining(Common):
    """A pretraining config; our own blocks are checked by those who read them."""

    augmentations: list[View]
    method_kwargs: Options = None
    momentum: Momentum | None = None
    knn_eval: KnnEval | None = None
    regularizers: Any = None
    monitor: Any = None
    projector: Any = None
    divergence: Any = None


class Linear(Common):
    """A config of the linear evaluation."""

    pretrained_feature_extractor: str | None = None
    pretrain_method: str | None = None
    finetune: bool = False
    auto_augment: bool = False
    label_smoothing: Share = 0.0
    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0
    classifier: Any = None
