"""The schema of the trainer's settings, and the types that the schema is built from."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from solo_dimreg.config.parsing import Block, whole
from solo_dimreg.config.values import device_count

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
