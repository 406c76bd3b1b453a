"""``solo-dimreg linear``."""

from __future__ import annotations

from pathlib import Path

import click

from solo_dimreg.cli.output import PATH, example, print_table


@click.command(
    "linear",
    epilog=example(
        "solo-dimreg linear trained_models/simclr/offline-ab12cd34 max_epochs=20",
        "solo-dimreg linear trained_models/simclr/offline-ab12cd34 --data datasets/patches",
    ),
)
@click.argument("checkpoint", type=PATH)
@click.option(
    "--config-path",
    "-cp",
    help="Folder of the config: your own or one that we ship.  [default: ours for the data set of the run; "
    "digits for a custom data set]",
)
@click.option("--config-name", "-cn", default="linear", help="Name of the config.")
@click.option(
    "--data",
    type=PATH,
    help="Probe on other images: a folder with train/ and val/, and a folder per class in each.",
)
@click.option("--out", type=PATH, help="Also write the result to this JSON file.")
@click.argument("overrides", nargs=-1)
def command(
    checkpoint: Path,
    config_path: str | None,
    config_name: str,
    data: Path | None,
    out: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Train solo-learn's linear probe on the frozen backbone of CHECKPOINT.

    CHECKPOINT is a .ckpt file of solo-learn or its folder. Data, backbone and resolution are those of the
    pretraining. OVERRIDES change the probe's config as in Hydra, e.g. max_epochs=50 optimizer.lr=0.1. The
    result is printed, and kept beside the checkpoint as linear-*.json, where 'solo-dimreg report' finds it. A
    probe with other settings has a file of its own. The probe itself is not saved.

    If no batch of the config would be full, and OVERRIDES give no batch size, the batch size of the
    pretraining is used, or the number of images if that is smaller.

    With --data the probe shows how well the representation transfers to images that it was not pretrained
    on. They are resized to the resolution of the pretraining. `classifier.normalization=bn
    classifier.init_std=0.01` is the classifier of LDReg's protocol, and the default on ImageNet.
    """
    from solo_dimreg.config.folders import find_config
    from solo_dimreg.files import find_checkpoint

    # Wrong names are refused before solo-learn is imported.
    checkpoint = checkpoint.expanduser()
    find_checkpoint(checkpoint)
    if config_path:
        find_config("linear", config_path, config_name)

    from omegaconf import OmegaConf

    from solo_dimreg.config.composing import compose, evaluation_settings, other_data
    from solo_dimreg.config.overrides import read_overrides
    from solo_dimreg.distributed import rank
    from solo_dimreg.files import write_json
    from solo_dimreg.solo_learn import register
    from solo_dimreg.solo_learn.base import LINEAR_CONFIGS
    from solo_dimreg.training.evaluation import DEVICE, linear_accuracy
    from solo_dimreg.training.results import probe_settings, save_evaluation

    host = register()
    run = host.read_run(checkpoint)
    folder = LINEAR_CONFIGS.get(run.settings.data.dataset, "digits")
    if data is not None:
        overrides = (*overrides, *other_data(data.expanduser()))
    linear = compose("linear", config_path or folder, config_name, overrides, host)
    linear = evaluation_settings(linear, run, overrides)
    smaller = None
    if not {each.key_or_group for each in read_overrides(overrides)} & {"optimizer", "optimizer.batch_size"}:
        # A run of solo-learn's published scripts has recorded no batch size.
        found = (OmegaConf.select(each, "optimizer.batch_size") for each in (run.settings, linear))
        smaller = next((size for size in found if size), None)
    result = linear_accuracy(host, run, linear, other_data=data is not None, smaller_batch=smaller)
    if rank() != 0:
        return
    if data is not None:
        names = [folder.name for folder in sorted((data.expanduser() / "train").iterdir()) if folder.is_dir()]
        shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        click.echo(f"On {data}: {len(names)} classes ({shown}).")
    rows = [["top-1", f"{result['acc1']:.2f}"]]
    rows += [["top-5", f"{result['acc5']:.2f}"]] if "acc5" in result else []
    print_table(["linear", "%"], rows)
    device = "cpu" if linear.get("accelerator") == "cpu" else DEVICE
    if path := save_evaluation(host, run, "linear", probe_settings(linear), linear, result, device):
        click.echo(f"Saved: {path}")
    if out:
        write_json(out, {"checkpoint": str(run.checkpoint), "data": data and str(data), "linear": result})
