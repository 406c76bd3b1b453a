"""``solo-dimreg pretrain``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from solo_dimreg.cli.output import example, print_table

if TYPE_CHECKING:
    from omegaconf import DictConfig


@click.command(
    "pretrain",
    short_help="Pretrain a method on images.",
    epilog=example(
        "solo-dimreg pretrain -cp digits -cn ldreg_simclr max_epochs=20",
        "solo-dimreg pretrain -cp digits -cn simclr \\\n"
        "      +regularizers.ldreg.weight=0.01 +regularizers.ldreg.k=64",
    ),
)
@click.option(
    "--config-path",
    "-cp",
    required=True,
    help="Folder of the config: your own, one of solo-learn's scripts/pretrain/*, or one that we ship: "
    "digits, patches, sprites, cifar, imagenet100, imagenet.",
)
@click.option("--config-name", "-cn", required=True, help="Name of the config, without .yaml.")
@click.argument("overrides", nargs=-1)
def command(config_path: str, config_name: str, overrides: tuple[str, ...]) -> None:
    """Pretrain a method on images, with solo-learn's data pipeline and trainer.

    The command reads the configs of solo-learn, whichever solo-learn is installed. OVERRIDES are Hydra's:
    key=value changes a setting, and +key=value adds one. Without a GPU the CPU is used.
    """
    from solo_dimreg.config.folders import find_config

    find_config("pretrain", config_path, config_name)  # a wrong one is refused before solo-learn is imported

    from solo_dimreg.config.composing import compose
    from solo_dimreg.distributed import rank
    from solo_dimreg.errors import first_process
    from solo_dimreg.solo_learn import register
    from solo_dimreg.solo_learn.next_steps import next_steps
    from solo_dimreg.solo_learn.record import read_record

    host = register()
    settings = compose("pretrain", config_path, config_name, overrides, host)
    from solo_dimreg.training.pretraining import pretrain

    def show_settings() -> None:
        if first_process():
            print_table(["setting", "value"], describe_settings(settings))

    folder = pretrain(settings, show_settings)
    if rank() != 0:
        return
    if not folder:
        click.echo("The training is finished. checkpoint.enabled is False, so nothing was saved.")
        return
    record = read_record(folder)
    files = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_file()))
    when = [[key, record[key]] for key in ("started", "finished") if key in record]
    print_table(["result", "value"], [["checkpoint", folder], ["files", files], *when])
    click.echo("Evaluate the checkpoint with:")
    for line in next_steps(host, folder):
        click.echo(f"  {line}")


def describe_settings(settings: DictConfig) -> list[list[object]]:
    """Return the main settings of a training, as rows of a table."""
    optimizer, data = settings.optimizer, settings.data
    paths = [str(path) for path in (data.get("train_path"), data.get("val_path")) if path]
    device = [str(settings.get("accelerator", "auto")), f"devices: {settings.get('devices', 1)}"]
    checkpoint = settings.get("checkpoint") or {}
    kept = Path(checkpoint.get("dir", "trained_models")) / settings.method
    return [
        ["method", settings.method],
        ["backbone", settings.backbone.name],
        ["data", f"{data.dataset}: {', '.join(paths)}" if paths else data.dataset],
        ["epochs", settings.max_epochs],
        ["batch size of a device", optimizer.batch_size],
        ["optimizer", f"{optimizer.name}, learning rate {optimizer.lr}"],
        ["device", f"{', '.join(device)}, precision: {settings.get('precision', 32)}"],
        ["seed", settings.get("seed", 5)],
        ["checkpoints", kept if checkpoint.get("enabled", False) else "not saved"],
    ]
