"""``solo-dimreg linear``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("linear")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--config-path",
    "-cp",
    help="Folder of the config: your own or one that we ship. Default: ours for the data set of the run "
    "(for a custom data set, digits).",
)
@click.option("--config-name", "-cn", default="linear", show_default=True, help="Name of the config.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the result to this JSON file.")
@click.argument("overrides", nargs=-1)
def command(
    checkpoint: Path, config_path: str | None, config_name: str, out: Path | None, overrides: tuple[str, ...]
) -> None:
    """Train solo-learn's linear probe on the frozen backbone of CHECKPOINT.

    CHECKPOINT is a .ckpt file of solo-learn's or its folder. Data, backbone and resolution are those of the
    pretraining; OVERRIDES change the probe's config as in Hydra, e.g. max_epochs=50 optimizer.lr=0.1. The
    result is printed; the probe itself is not saved.

    \b
    Example:
      solo-dimreg linear trained_models/simclr/offline-ab12cd34 max_epochs=20
    """
    from solo_dimreg.checks import check_common
    from solo_dimreg.cli.output import print_table
    from solo_dimreg.distributed import rank
    from solo_dimreg.evaluation import linear_accuracy
    from solo_dimreg.files import write_json
    from solo_dimreg.hosts import register
    from solo_dimreg.settings import compose, evaluation_settings, fit_to_machine

    host = register()
    run = host.read_run(checkpoint.expanduser())
    folders = {"cifar10": "cifar", "cifar100": "cifar", "custom": "digits"}
    dataset = run.settings.data.dataset
    linear = compose("linear", config_path or folders.get(dataset, dataset), config_name, overrides)
    linear = evaluation_settings(linear, run, overrides)
    check_common(linear)
    fit_to_machine(linear)
    result = linear_accuracy(host, run, linear)
    if rank() != 0:
        return
    print_table(["linear", "%"], [["top-1", f"{result['acc1']:.2f}"], ["top-5", f"{result['acc5']:.2f}"]])
    if out:
        write_json(out, {"checkpoint": str(run.checkpoint), "linear": result})
