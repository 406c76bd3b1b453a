"""``solo-dimreg data``."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("data")
def command() -> None:
    """Write a data set as image folders, the format that solo-learn reads. Nothing is downloaded."""


@command.command("digits")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("datasets/digits"),
    show_default=True,
    help="Folder to write train/ and val/ into.",
)
@click.option("--force", is_flag=True, help="Move an existing folder aside and write afresh.")
def digits(out: Path, force: bool) -> None:
    """scikit-learn's 1,797 real handwritten digits, in a fixed 80/20 split."""
    from solo_dimreg.datasets.digits import write_digits

    click.echo(f"Digits: {write_digits(out, force=force)}")
