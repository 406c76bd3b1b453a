"""Says what the add-on does in a training, and what to do with its checkpoint, in a few lines.

A callback that every method brings, so that solo-learn's own scripts say it too.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from solo_dimreg.blocks.monitor import NAME
from solo_dimreg.blocks.monitor_files import folder_of
from solo_dimreg.distributed import rank
from solo_dimreg.hosts.base import plain
from solo_dimreg.hosts.runs import checkpoint_epoch

if TYPE_CHECKING:
    from solo_dimreg.hosts.base import Host

# Our linear configs by the data set that solo-learn knows by name; other images have that of the digits.
LINEAR = {"cifar10": "cifar", "cifar100": "cifar", "imagenet": "imagenet", "imagenet100": "imagenet100"}

# What solo-learn's scripts have to be told where there is no GPU.
ON_CPU = ("accelerator=cpu", 'devices="1"', "strategy=auto", "precision=32", "sync_batchnorm=False")


class Announcer:
    """The callback without its base class, which is the host's."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self.host = host

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Names the terms, the projector's end and the monitor's file; silent where there are none."""
        parts = [*describe_terms(module, trainer.world_size, trainer.max_epochs)]
        if module.projector_settings is not None:
            parts.append(f"projector ends with {module.projector_settings['normalization']}")
        if module.monitor_settings is not None:
            folder = folder_of(trainer)
            where = f"to {folder / f'{NAME}.csv'}" if folder else "to wandb"
            every = module.monitor_settings["every_n_epochs"]
            often = "every epoch" if every == 1 else f"every {every} epochs"
            parts.append(f"monitor {often}, {where}")
        if rank() == 0 and parts:
            say(f"{type(module).__name__}: {'; '.join(parts)}.")

    def on_fit_end(self, trainer: Any, module: Any) -> None:
        """Names the checkpoint and the commands that evaluate it, unless our own command does."""
        callbacks = (each for each in trainer.callbacks if type(each).__name__ == "Checkpointer")
        folder = getattr(next(callbacks, None), "path", None)  # none of a run that was at its end already
        if (
            rank() == 0
            and folder
            and not getattr(module, "raises", False)
            and any(Path(folder).glob("*.ckpt"))
        ):
            say(f"trained {trainer.current_epoch} epochs. Checkpoint: {folder}")
            for command in evaluation_commands(self.host, Path(folder)):
                tqdm.write(f"  {command}", file=sys.stderr)


def make_announcer(host: Host) -> Any:
    """The announcer as a callback of the host's Lightning."""
    return type("Announcer", (Announcer, host.pl.Callback), {"__module__": __name__})(host)


def say(line: str) -> None:
    """A line that shows whose it is; a training's standard output is solo-learn's."""
    tqdm.write(f"solo-dimreg: {line}", file=sys.stderr)  # not into the middle of a progress bar


def describe_terms(module: Any, processes: int, epochs: int) -> Iterator[str]:
    """Each regularizer: what it looks at, its weight, its k for this batch, and when it begins."""
    for name, term in module.regularizers.items():
        said = f"{name} of the {term.where}, weight {term.weight:g}"
        neighbours = getattr(term.regularizer, "neighbours", None)
        if neighbours is not None:
            batch = module.batch_size * processes
            encoders = 2 if hasattr(module, "momentum_updater") else 1
            k = min(neighbours(batch), encoders * module.num_large_crops * batch - 1)
            wanted = term.regularizer.k
            said += f", k = {k}" + (
                f" instead of {wanted}, which the batch lacks" if wanted and wanted > k else ""
            )
        if term.warmup_epochs >= epochs > 0:
            said += f", NEVER: warmup_epochs {term.warmup_epochs} of {epochs} epochs"
        elif term.warmup_epochs:
            said += f", from epoch {term.warmup_epochs + 1} of {epochs}"
        yield said


def evaluation_commands(host: Host, folder: Path) -> list[str]:
    """Commands, as for a shell, that evaluate the run in a folder: ours, and solo-learn's linear script."""
    commands = [f"solo-dimreg {name} {shlex.quote(str(folder))}" for name in ("linear", "knn", "diagnose")]
    checkpoint = max(folder.glob("*.ckpt"), key=checkpoint_epoch)
    if host.generation != "current":
        return commands
    settings = host.settings_of(json.loads((folder / "args.json").read_text()))
    kwargs = plain(settings.backbone.get("kwargs")) or {}
    paths = {key: settings.data.get(key) or "???" for key in ("train_path", "val_path")}
    overrides = [
        f'pretrained_feature_extractor="{checkpoint}"',  # quoted for the = in its name
        f"+pretrain_method={settings.method}",
        f"backbone.name={settings.backbone.name}",
        "~backbone.kwargs",
        "+backbone.kwargs={" + ", ".join(f"{key}: {json.dumps(kwargs[key])}" for key in kwargs) + "}",
        f"data.dataset={settings.data.dataset}",
        *(f'data.{key}="{path}"' for key, path in paths.items()),
        *(() if torch.cuda.is_available() else ON_CPU),
    ]
    config = LINEAR.get(settings.data.dataset, "digits")
    script = ["python", "main_linear.py", "--config-path", config, "--config-name", "linear", *overrides]
    crops = {augmentation.crop_size for augmentation in settings.augmentations}
    note = (
        "  # at 224 x 224, as solo-learn does" if settings.data.dataset == "custom" and crops != {224} else ""
    )
    return [*commands, shlex.join(script) + note]
