"""Load a config: check every setting, fit the config to the machine, and check how the settings fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from solo_dimreg.config.agreement import check_agreement, check_method
from solo_dimreg.config.composing import MACHINE, fill_empty_blocks, fit_to_machine
from solo_dimreg.config.data import check_data, check_reader
from solo_dimreg.config.parsing import parse
from solo_dimreg.config.schema import Common, Linear, Pretraining
from solo_dimreg.config.values import plain
from solo_dimreg.errors import ConfigError
from solo_dimreg.files import check_writable

if TYPE_CHECKING:
    from solo_dimreg.solo_learn import Host

# Keys in solo-learn's configs that nothing reads.
IDLE = ("augmentations_cfg", "wandb_cfg")

Kind = TypeVar("Kind", bound=Common)


def load_settings(
    host: Host,
    config: DictConfig,
    fit: Callable[[DictConfig], None] = fit_to_machine,
    images: bool = True,
) -> Pretraining:
    """Return the settings of a pretraining, after refusing what cannot work.

    Empty blocks of the config are filled, in place; ``fit`` changes it for this machine, in place.

    Raises:
        ConfigError: The message names the key, the value and what would be right.
    """
    settings = parse_config(host, config, Pretraining)
    check_method(host, settings)
    fit(config)
    settings = settings.model_copy(update={key: config.get(key) for key in MACHINE if key in config})
    check_agreement(host, settings)
    resumed = settings.resume_from_checkpoint
    if resumed is not None and not Path(resumed).is_file():
        raise ConfigError(f"resume_from_checkpoint: {resumed!r} is not a file; it must be a checkpoint.")
    if images:
        check_data(config, need_val=settings.monitor is not None and settings.monitor.on == "val")
        check_reader(config)
    return settings


def load_linear_settings(host: Host, config: DictConfig) -> Linear:
    """Return the settings of a linear evaluation; raise a ConfigError, as :func:`load_settings` does."""
    settings = parse_config(host, config, Linear)
    fit_to_machine(config)
    check_agreement(host, settings)
    return settings


def parse_config(host: Host, config: DictConfig, schema: type[Kind]) -> Kind:
    """Return the settings of a config, each of which is allowed by itself.

    Raises:
        ConfigError: The message names the key, the value and what would be right.
    """
    fill_empty_blocks(config)
    try:
        content = plain(config)
    except OmegaConfBaseException as error:
        reason = str(error.msg or error).strip().partition("\n")[0]
        raise ConfigError(
            f"{error.full_key or 'config'}: {reason}; it must be a value, or refer to one."
        ) from error
    for key in sorted(OmegaConf.missing_keys(config)):
        raise ConfigError(f"{key}: is missing from the config; it must be there.")
    listed = content.get("extra_keys")
    allowed = {*host.config_keys(), *IDLE, *(listed if isinstance(listed, list) else ())}
    settings = parse(schema, content, allowed)
    if settings.checkpoint.enabled:
        check_writable("checkpoint.dir", Path(settings.checkpoint.dir))
    return settings
