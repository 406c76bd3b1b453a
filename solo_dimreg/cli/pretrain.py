"""``solo-dimreg pretrain``."""

from __future__ import annotations

import click


@click.command("pretrain", short_help="Pretrain a method on images.")
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

    Takes the configs of solo-learn, whichever solo-learn is installed; OVERRIDES are Hydra's: key=value
    changes a setting, +key=value adds one. Without a GPU the CPU is used.

    \b
    Examples:
      solo-dimreg pretrain -cp digits -cn ldreg_simclr max_epochs=20
      solo-dimreg pretrain -cp solo-learn/scripts/pretrain/cifar -cn byol \\
          +regularizers.ldreg.weight=0.005 +regularizers.ldreg.k=64
    """
    from solo_dimreg.distributed import rank
    from solo_dimreg.hosts import register
    from solo_dimreg.hosts.next_steps import next_steps
    from solo_dimreg.running.checks import check_settings
    from solo_dimreg.running.settings import compose, fit_to_machine

    host = register()
    settings = compose("pretrain", config_path, config_name, overrides)
    check_settings(host, settings)  # as it was written: on a CPU much of it becomes another
    fit_to_machine(settings)
    from solo_dimreg.running.pretraining import pretrain

    folder = pretrain(settings)
    if rank() != 0:
        return
    if not folder:
        click.echo("Trained; checkpoint.enabled is False, nothing was saved.")
        return
    click.echo(f"Checkpoint: {folder}\nEvaluate it with:")
    for line in next_steps(host, folder):
        click.echo(f"  {line}")
