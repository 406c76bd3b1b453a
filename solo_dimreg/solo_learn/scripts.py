"""Watch solo-learn's own scripts, unmodified: replace some of their functions, and end faults with one line.

The script has imported its functions before Hydra imports us. Therefore the names in the running script are
replaced. Any other program, our own commands included, does not have these names and is left alone.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import get_args
from omegaconf import DictConfig

from solo_dimreg.config.data import check_reader
from solo_dimreg.config.overrides import read_overrides, with_own_blocks
from solo_dimreg.datasets.downloads import explained_download
from solo_dimreg.datasets.images import read_with_us
from solo_dimreg.errors import DimregError, unforeseen
from solo_dimreg.monitor.stopping import end
from solo_dimreg.solo_learn.mixins import Mixin, mixed_in
from solo_dimreg.solo_learn.run_summary import say

# Functions that main_pretrain.py and main_linear.py call, by their names there, and their modules.
PARSER = ("parse_cfg", "solo.args.pretrain")
TRANSFORMS = ("build_transform_pipeline", "solo.data.pretrain_dataloader")
IMAGES = ("prepare_datasets", "solo.data.pretrain_dataloader")
RESUMER = ("AutoResumer", "solo.utils.auto_resumer")
# The model of main_linear.py.
PROBE = ("LinearModel", "solo.methods.linear")
LABELLED = ("prepare_data_classification", "solo.data.classification_dataloader")
LINEAR_PARSER = ("parse_cfg", "solo.args.linear")
LINEAR_LABELLED = ("prepare_data", "solo.data.classification_dataloader")


class _Script:
    """The state of a running script: whether it is watched, and whether its config uses the add-on."""

    watched = uses_add_on = False


def watch_script(checks: Any) -> None:
    """Check the config of a running ``main_pretrain.py`` before solo-learn's parser does, and its images.

    At that moment, solo-learn has not yet seeded, added its defaults, built the method or read a file.
    Afterwards, its data sets read their files with our loader, and so do those of ``main_linear.py``. The
    checks are :class:`solo_dimreg.training.scripts.ScriptChecks`.
    """
    parsers = [(PARSER, checks.config), (LINEAR_PARSER, check_reader)]
    if not any(_change(parser, partial(_checked, check)) for parser, check in parsers):
        return
    _Script.watched = True
    _change(PROBE, lambda kind: mixed_in(Probe, kind))
    _change(RESUMER, lambda kind: mixed_in(Resumer, kind, resume=staticmethod(checks.resume)))
    _change(TRANSFORMS, partial(_with_result, lambda transforms: transforms))
    _change(IMAGES, partial(_with_result, lambda dataset: checks.images(read_with_us(dataset))))
    for loaders in (LABELLED, LINEAR_LABELLED):
        _change(loaders, partial(_with_result, _loaders_with_us))


def _change(what: tuple[str, str], change: Callable[[Any], Any]) -> bool:
    """Change the running script's object of this name, if it is solo-learn's and not yet changed."""
    main, (name, module) = sys.modules["__main__"], what
    found = getattr(main, name, None)
    if getattr(found, "__module__", None) != module or hasattr(found, "__wrapped__"):
        return False
    setattr(main, name, change(found))
    return True


def _checked(
    check: Callable[[DictConfig], Any], parse: Callable[[DictConfig], DictConfig]
) -> Callable[[DictConfig], DictConfig]:
    """Return a parser that lets ``check`` see the config first."""

    @wraps(parse)
    def checked(cfg: DictConfig) -> DictConfig:
        with one_line_in_scripts("read"):
            _Script.uses_add_on = bool(check(cfg))
            return parse(cfg)

    return checked


def _with_result(change: Callable[[Any], Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that loads images, with a change of its result."""
    signature = inspect.signature(function)

    @wraps(function)
    def changed(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        with (
            one_line_in_scripts("load the images of"),
            explained_download(given["dataset"], given.get("train_data_path")),
        ):
            return change(function(*args, **kwargs))

    return changed


def _loaders_with_us(loaders: Sequence[Any]) -> Sequence[Any]:
    for loader in loaders:
        read_with_us(loader.dataset)
    return loaders


def check_command_line() -> bool:
    """End a running script of solo-learn's if Hydra would not parse one of its overrides.

    Returns:
        Whether it is such a script with ``--multirun``; the ``-m`` of pytest is something else.
    """
    parse = getattr(sys.modules["__main__"], PARSER[0], None)
    if not str(getattr(parse, "__module__", "")).startswith("solo.args."):
        return False
    given = get_args()
    try:
        read_overrides(given.overrides, sweep=given.multirun)
    except DimregError as error:
        end(error)
    return bool(given.multirun)


def accept_own_blocks() -> None:
    """Let overrides set our blocks in a config that lacks them, whenever this process composes a config.

    Hydra has read the command line before it finds us, so its loader of configs is replaced.
    """
    load = ConfigLoaderImpl.load_configuration
    if hasattr(load, "__wrapped__"):
        return

    @wraps(load)
    def changed(
        self: Any, config_name: str | None, overrides: list[str], *args: Any, **kwargs: Any
    ) -> DictConfig:
        changes = with_own_blocks(overrides, lambda key: bool(self.get_group_options(key)))
        return load(self, config_name, changes, *args, **kwargs)

    ConfigLoaderImpl.load_configuration = changed  # type: ignore[method-assign]


@contextmanager
def one_line_in_scripts(what: str) -> Iterator[None]:
    """End solo-learn's scripts with one line and a status, where Hydra would show a traceback.

    Elsewhere, errors are raised for our caller. ``what`` was being done with the config, as a verb.
    """
    try:
        yield
    except Exception as error:
        end_script(error, what)
        raise


def end_script(error: BaseException, what: str) -> None:
    """End a script of solo-learn's on an error of ours, or on any error if its config uses the add-on."""
    if _Script.watched and isinstance(error, DimregError):
        end(error)
    if _Script.uses_add_on and isinstance(error, Exception):
        end(unforeseen(what, error))


class Probe(Mixin):
    """solo-learn's model of ``main_linear.py``, which gives its accuracy to the logger only."""

    def on_fit_end(self) -> None:
        """Print the accuracy."""
        super().on_fit_end()
        metrics = self.trainer.callback_metrics
        if "val_acc1" in metrics and self.trainer.is_global_zero:
            say(f"linear probe: top-1 {float(metrics['val_acc1']):.2f} % on the validation images.")


class Resumer(Mixin):
    """solo-learn's auto-resume, which chooses the checkpoint as our own command does."""

    resume: Callable[[DictConfig, Path], Path | None]

    def find_checkpoint(self, cfg: DictConfig) -> tuple[Path | None, str | None]:
        """Return the checkpoint and the id of its run at Weights & Biases."""
        if not _Script.uses_add_on:
            return super().find_checkpoint(cfg)
        found = self.resume(cfg, Path(self.checkpoint_dir))
        if found is None:
            return None, None
        return found, json.loads((found.parent / "args.json").read_text()).get("wandb_run_id")
