"""``solo-dimreg init``."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from solo_dimreg.cli.output import FILE_TO_WRITE, FOLDER, PATH, example


@click.command(
    "init",
    epilog=example(
        "solo-dimreg init photos --method ldreg_simclr --out my.yaml",
        "solo-dimreg pretrain --config-path . --config-name my",
    ),
)
@click.argument("folder", type=PATH)
@click.option("--method", default="byol", help="Name of a method, from solo-dimreg methods.")
@click.option("--out", type=FILE_TO_WRITE, help="Config to write.  [default: METHOD-FOLDER.yaml]")
@click.option(
    "--split",
    type=FOLDER,
    help="Folder to write train/ and val/ into where FOLDER has none.  [default: datasets/FOLDER-split]",
)
@click.option("--seed", default=0, help="Seed of the split.")
@click.option("--force", is_flag=True, help="Overwrite the config, and move an older split aside.")
def command(folder: Path, method: str, out: Path | None, split: Path | None, seed: int, force: bool) -> None:
    """Write a first config for the images in FOLDER, with comments.

    FOLDER holds train/ and val/ with a folder per class in each, or a folder per class, or images alone. A
    fifth of every class is held back where there is no val/, by symbolic links in another folder. Images
    alone are trained on without labels. The config fits the size, colour and number of the images. Both
    solo-dimreg pretrain and solo-learn's main_pretrain.py read it.
    """
    from solo_dimreg.errors import ConfigError
    from solo_dimreg.files import check_image_folder, write_text

    # Wrong paths are refused before solo-learn is imported.
    check_image_folder(folder)
    name = folder.resolve().name
    out = out or Path(f"{method}-{name}.yaml")
    if out.suffix != ".yaml":
        raise ConfigError(f"--out: {str(out)!r} is not allowed; it must end in .yaml, as Hydra's configs do.")
    if out.exists() and not force:
        raise ConfigError(f"--out: {str(out)!r} exists; give another name, or --force to overwrite it.")

    from solo_dimreg.datasets.layout import find_layout
    from solo_dimreg.datasets.split import split_folder
    from solo_dimreg.solo_learn import register
    from solo_dimreg.training.starting import base_config, fitted_config

    host = register()
    layout = find_layout(folder)
    derived, base = base_config(host, method, layout.images)
    text = fitted_config(host, layout, name, derived, base)
    if layout.classes and layout.val is None:
        split = split_folder(layout.train, split or Path("datasets", f"{name}-split"), seed=seed, force=force)
        click.echo(f"Split: {split}, links to a fifth of every class in val/ and to the rest in train/.")
        layout = find_layout(split)
        derived, base = base_config(host, method, layout.images)
        text = fitted_config(host, layout, name, derived, base)
    write_text(out, text)
    labels = f"{len(layout.classes)} classes" if layout.classes else "no labels"
    click.echo(f"Config: {out}, for {layout.images} training images ({labels}), derived from {derived}.")
    config = (shlex.quote(str(out.parent)), shlex.quote(out.stem))
    commands = [f"solo-dimreg pretrain --config-path {config[0]} --config-name {config[1]}"]
    if host.generation == "current":
        script = (shlex.quote(str(out.parent.resolve())), config[1])
        commands.append(f"python main_pretrain.py --config-path {script[0]} --config-name {script[1]}")
    click.echo("Train with one of:" if len(commands) > 1 else "Train with:")
    for each in commands:
        click.echo(f"  {each}")
    click.echo(
        "At its end, the training prints the commands that evaluate it. RUN is the name of its folder:"
    )
    for each in ("linear", "knn", "diagnose") if layout.classes and layout.val else ("diagnose",):
        click.echo(f"  solo-dimreg {each} trained_models/{method}/RUN")
