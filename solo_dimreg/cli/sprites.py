"""``solo-dimreg sprites``."""

from __future__ import annotations

from pathlib import Path

import click

from solo_dimreg.cli.output import example, jobs_option, out_option, print_table, writable


@click.command(
    "sprites", epilog=example("solo-dimreg sprites --factors 2 --factors 4 --images 10000 max_epochs=20")
)
@out_option("results/sprites")
@click.option(
    "--factors",
    multiple=True,
    type=int,
    help="Number of free factors; may be repeated.  [default: 1, 2, 3, 5]",
)
@click.option("--images", default=2_000, help="Number of images for each number of factors.")
@click.option("--seed", default=5, help="Seed of the training.")
@jobs_option
@click.option("--linear", "linear_overrides", multiple=True, help="Override of the linear probe's config.")
@click.argument("overrides", nargs=-1)
def command(
    out: Path,
    factors: tuple[int, ...],
    images: int,
    seed: int,
    jobs: int | None,
    linear_overrides: tuple[str, ...],
    overrides: tuple[str, ...],
) -> None:
    """Train on sprites of a known dimension, which 'data sprites' only draws, and compare the LID with it.

    The true dimension is the number of free factors. The local intrinsic dimensionality (LID) is measured for
    the pixels, an untrained backbone, and the backbones that SimCLR trains without and with LDReg. A linear
    regression shows how much of each factor the features contain. OVERRIDES change every pretraining config.
    Finished runs are skipped, and an interrupted run resumes. sprites.json and sprites.png have the rows of
    the last call.
    """
    out = writable(out)

    from solo_dimreg.studies.sprites import FREE_FACTORS, run_sprites, sprites_table
    from solo_dimreg.studies.study import read_study
    from solo_dimreg.studies.workers import default_jobs

    study = read_study("sprites").changed(first_seed=seed)
    study = study.changed(overrides=list(overrides), linear=list(linear_overrides))
    jobs = jobs or default_jobs()
    results = run_sprites(study, out, factors or FREE_FACTORS, images, jobs, say=click.echo)
    print_table(*sprites_table(results["rows"]))
    click.echo(f"Results: {out / 'sprites.json'}, {out / 'sprites.png'}")
