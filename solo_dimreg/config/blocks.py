"""The blocks that we add to a config of solo-learn's, as typed settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BeforeValidator, Field, SkipValidation, field_validator, model_validator

from solo_dimreg.config.parsing import (
    Block,
    Refusal,
    check_keys,
    mapping,
    number,
    one_of,
    option_in,
    options_of_callable,
    parse,
    whole,
)
from solo_dimreg.config.values import OWN_BLOCKS
from solo_dimreg.errors import ConfigError, unknown
from solo_dimreg.metrics.registry import FEATURES_AND_EMBEDDINGS, VIEWS
from solo_dimreg.nn.normalization import normalization_layer
from solo_dimreg.plugins import monitored_metrics, registered

# The shares that are 1 at a collapse.
LIMITED = ("z_mean_share", "z_off_diagonal_correlation", "mean_share", "off_diagonal_correlation")
# What the monitor measures by itself.
MONITORED = (
    *("effective_rank", "lid", "matrix_entropy", "mutual_information", "off_diagonal_correlation"),
    *("mean_share", "alignment"),
)

Count = Annotated[int, whole(1)]
false_is_none = BeforeValidator(lambda value: None if value is False else value)
disabled_is_none = AfterValidator(lambda block: block if block and block.enabled else None)


class RegularizerSettings(Block):
    """A term of the loss: a regularizer, its weight and where it takes part.

    Attributes:
        kind: The class of the regularizer.
        weight: The weight in the loss.
        warmup_epochs: The first epochs, which train without the term.
        where: ``features`` of the backbone or ``embeddings`` of the projector.
        options: The arguments of the class.
    """

    kind: Any
    weight: Annotated[float, number("a number >= 0", lambda weight: weight >= 0)]
    warmup_epochs: Annotated[int, whole(0)] = 0
    where: Annotated[str, one_of("place", ("features", "embeddings"))] = "features"
    options: dict[str, Any]

    @model_validator(mode="after")
    def _can_be_built(self) -> RegularizerSettings:
        try:
            with torch.random.fork_rng(devices=[]):
                self.kind(**self.options)
        except (ValueError, TypeError) as error:
            raise Refusal(str(error), option_in(self.options, error)) from error
        return self


def _with_kinds(block: Any, place: str = "regularizers") -> Any:
    """Return a ``regularizers:`` block with the class of each regularizer, and its options in one mapping."""
    if not block:
        return {}
    known, terms = registered("regularizers"), {}
    for name, given in block.items():
        if name not in known:
            raise Refusal(unknown("regularizer", str(name), known), str(name))
        if not isinstance(given, Mapping | None):
            raise Refusal(f"{given!r} is not a mapping of settings, {{weight: …}}.", name)
        kind = known[name].value
        own = set(RegularizerSettings.model_fields) - {"kind", "options"}
        options, open_ended = options_of_callable(kind)
        if not open_ended:
            check_keys(f"{place}.{name}", given or {}, own.union(options))
        merged = {**vars(kind).get("defaults", {}), **(given or {})}
        if "weight" not in merged:
            raise Refusal("is missing; it must be a number >= 0.", f"{name}.weight")
        terms[name] = {key: merged.pop(key) for key in own & set(merged)}
        terms[name] |= {"kind": kind, "options": merged}
    return terms


REMEDY = "monitor.alarm.remedy"


class AlarmSettings(Block):
    """The ``alarm:`` block in a ``monitor:`` block, see :class:`solo_dimreg.monitor.alarm.Alarm`.

    Attributes:
        limits: The shares, such as that of the mean, which at these values or above count as a collapse. The
            usual ones are watched if the monitor measures them.
        rollbacks: How often ``action: rollback`` goes back before the alarm stops the training.
        remedy: The terms that ``action: remedy`` adds, written as in a ``regularizers:`` block.
    """

    enabled: bool = True
    metric: str = "effective_rank"
    drawdown: Annotated[float, number("a number above 0 and below 1", lambda part: 0 < part < 1)] = 0.8
    patience: Count = 3
    limits: Annotated[
        dict[str, Annotated[float, number("a number above 0 and at most 1", lambda part: 0 < part <= 1)]],
        mapping("{z_mean_share: 0.97}"),
    ] = Field(default_factory=lambda: dict.fromkeys(LIMITED[:2], 0.97))
    action: Annotated[str, one_of("action", ("warn", "stop", "rollback", "remedy"))] = "warn"
    rollbacks: Count = 2
    remedy: Annotated[
        dict[str, RegularizerSettings],
        BeforeValidator(partial(_with_kinds, place=REMEDY)),
        mapping("{name: {weight: …}}"),
    ] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _options_are_used(self) -> AlarmSettings:
        if self.action == "remedy" and not self.remedy:
            raise Refusal(
                "is missing; action: remedy needs a regularizer, as in {decorrelation: {weight: 0.01}}.",
                "remedy",
            )
        for key, action in (("remedy", "remedy"), ("rollbacks", "rollback")):
            if key in self.model_fields_set and getattr(self, key) and self.action != action:
                raise Refusal(f"is used by action: {action} alone; action is {self.action}.", key)
        return self

    @field_validator("metric", mode="before")
    @classmethod
    def _falls(cls, metric: Any) -> Any:
        falling = {name for name, record in monitored_metrics().items() if record.falls}
        if str(metric).removeprefix("z_") not in falling:
            raise Refusal(unknown("falling metric", str(metric), falling))
        return metric

    @field_validator("limits")
    @classmethod
    def _are_shares(cls, limits: dict[str, float]) -> dict[str, float]:
        for metric in limits:
            if metric not in LIMITED:
                raise Refusal(unknown("share", metric, LIMITED))
        return limits

    @property
    def named(self) -> dict[str, str]:
        """Return the metrics that were asked for, each with its key."""
        limits = {f"limits.{name}": name for name in self.limits if "limits" in self.model_fields_set}
        return {name: key for key, name in {"metric": self.metric, **limits}.items()}


class MonitorSettings(Block):
    """The ``monitor:`` block: which metrics are measured, how often and on which images."""

    enabled: bool = True
    every_n_epochs: Count | None = 1
    every_n_steps: Count | None = None
    on: Annotated[str, one_of("place", ("auto", "fixed", "train", "val"))] = "auto"
    max_samples: Annotated[int, whole(3)] = 1024
    metrics: list[str] = Field(default=[*MONITORED])
    layers: list[str] = Field(default=[])
    alarm: Annotated[AlarmSettings | None, disabled_is_none, mapping("{drawdown: 0.8}"), false_is_none] = None

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, block: Mapping[Any, Any]) -> dict[str, Any]:
        # YAML 1.1 reads the key on as true, and JSON writes that as a string.
        given = {("on" if key in (True, "true") else key): value for key, value in block.items()}
        if given.get("every_n_steps") is not None:
            given.setdefault("every_n_epochs", None)
        elif given.get("every_n_epochs", 1) is None:
            raise Refusal(
                "None is allowed only with every_n_steps; without it, it must be a whole number >= 1.",
                "every_n_epochs",
            )
        return given

    @field_validator("metrics", mode="before")
    @classmethod
    def _are_known(cls, metrics: Any) -> Any:
        known = monitored_metrics()
        if not isinstance(metrics, list | tuple) or not metrics:
            raise ValueError(f"a list of {', '.join(sorted(known))}")
        for metric in metrics:
            if metric not in known:
                raise Refusal(unknown("metric", str(metric), known))
        return list(metrics)

    @field_validator("layers", mode="before")
    @classmethod
    def _are_names(cls, layers: Any) -> Any:
        if not isinstance(layers, list | tuple) or not all(isinstance(name, str) and name for name in layers):
            raise ValueError("a list of names of modules, [backbone.layer3, backbone.layer4]")
        return list(dict.fromkeys(layers))

    @model_validator(mode="after")
    def _fits_together(self) -> MonitorSettings:
        for metric in self.metrics if "metrics" in self.model_fields_set else ():
            self._needs_views(metric, "metrics")
        if self.alarm is not None:
            metric = self.alarm.metric
            name = metric.removeprefix("z_")
            self._needs_views(name, "alarm.metric")
            if monitored_metrics()[name].inputs == FEATURES_AND_EMBEDDINGS and name != metric:
                raise Refusal(f"{metric!r} covers both already; leave out the z_.", "alarm.metric")
            names = [each.removeprefix("z_") for each in self.alarm.named]
            self.metrics = [*dict.fromkeys([*self.metrics, *names])]
        return self

    def _needs_views(self, metric: str, key: str) -> None:
        if monitored_metrics()[metric].inputs != VIEWS:
            return
        if self.on == "auto":
            self.on = "train"
        if self.on != "train":
            raise Refusal(f"{metric!r} needs two views, which only on: train has.", key)

    def how_often(self) -> str:
        """Return in words how often metrics are measured."""
        units = (("epoch", self.every_n_epochs), ("step", self.every_n_steps))
        said = [f"every {unit}" if n == 1 else f"every {n} {unit}s" for unit, n in units if n is not None]
        return " and ".join(said) + (" and at the end" if said != ["every epoch"] else "")


class ProjectorSettings(Block):
    """The ``projector:`` block: the arguments of the layer that normalizes the output of the projector."""

    normalization: SkipValidation[str] = "shuffled_dbn"
    num_groups: SkipValidation[int | str] = "auto"
    eps: SkipValidation[float] = 1e-5
    momentum: SkipValidation[float] = 0.1
    affine: SkipValidation[bool] = False
    track_running_stats: SkipValidation[bool] = True

    @model_validator(mode="after")
    def _fits_some_width(self) -> ProjectorSettings:
        self.model_copy(update={"num_groups": "auto"}).layer(1)  # the width is unknown yet
        return self

    def layer(self, width: int) -> torch.nn.Module:
        """Return the layer for embeddings (B, width); raise a ConfigError for a wrong option or width."""
        try:
            return normalization_layer(width, **dict(self))
        except ValueError as error:
            key = ".".join(filter(None, ("projector", option_in(type(self).model_fields, error))))
            raise ConfigError(f"{key}: {error}") from error


class DivergenceSettings(Block):
    """The ``divergence:`` block: after how many steps without a finite loss the training stops."""

    patience: Count = 10


class ClassifierSettings(Block):
    """The ``classifier:`` block of a linear config: the classifier of the probe.

    Attributes:
        normalization: ``none``, or ``bn`` for a batch norm without scale and shift before the linear layer.
        init_std: The standard deviation of the initial weights; the bias is then 0.
    """

    normalization: Annotated[str, one_of("name", ("none", "bn"))] = "none"
    init_std: Annotated[float, number("a number > 0", lambda std: std > 0)] | None = None


class OwnBlocks(Block):
    """Our blocks of a config; None stands for a block that is off."""

    regularizers: Annotated[
        dict[str, RegularizerSettings], BeforeValidator(_with_kinds), mapping("{name: {weight: …}}")
    ] = Field(default_factory=dict)
    monitor: Annotated[
        MonitorSettings | None, disabled_is_none, mapping("{every_n_epochs: 1}"), false_is_none
    ] = None
    projector: Annotated[
        ProjectorSettings | None,
        mapping("{normalization: dbn}"),
        BeforeValidator(lambda block: block or None),
    ] = None
    divergence: Annotated[
        DivergenceSettings,
        BeforeValidator(lambda block: {} if block is None else block),
        mapping("{patience: 10}"),
    ] = DivergenceSettings()

    @model_validator(mode="after")
    def _remedy_is_new(self) -> OwnBlocks:
        for name in set(self.remedy) & set(self.regularizers):
            raise Refusal(f"{name!r} takes part from the start: it stands in regularizers, too.", REMEDY)
        return self

    @property
    def remedy(self) -> dict[str, RegularizerSettings]:
        """Return the terms that the alarm adds when it triggers."""
        alarm = self.monitor.alarm if self.monitor else None
        return alarm.remedy if alarm else {}


def read_blocks(read: Callable[[str], Any]) -> OwnBlocks:
    """Return our blocks, or raise a ConfigError; ``read`` returns a block by name, in plain containers."""
    return parse(OwnBlocks, {name: read(name) for name in OWN_BLOCKS})
