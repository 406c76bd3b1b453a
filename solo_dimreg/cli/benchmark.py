"""``solo-dimreg benchmark``."""

from __future__ import annotations

from pathlib import Path

import click

from solo_dimreg.cli.output import FOLDER, example, jobs_option, page_options, print_table


@click.command(
    "benchmark",
    epilog=example("solo-dimreg benchmark quick --seeds 3 --row simclr --row ldreg_simclr max_epochs=20"),
)
@click.argument("name", metavar="NAME")
@click.option("--out", type=FOLDER, help="Folder of the results.  [default: results/NAME]")
@click.option("--seeds", default=1, help="Number of seeds; more than one give a standard deviation.")
@click.option("--row", "rows", multiple=True, help="Run only this row; may be repeated.")
@jobs_option
@click.option("--linear", "linear_overrides", multiple=True, help="Override of the linear probe's config.")
@page_options("OUT/results.json")
@click.argument("overrides", nargs=-1)
def command(
    name: str,
    out: Path | None,
    seeds: int,
    rows: tuple[str, ...],
    jobs: int | None,
    linear_overrides: tuple[str, ...],
    page: Path | None,
    files: tuple[Path, ...],
    overrides: tuple[str, ...],
) -> None:
    """Train several methods alike and compare their accuracy, not their cost as 'bench' does.

    NAME is quick (the digits, minutes on a CPU), cifar10, cifar100, imagenet100 or imagenet. OVERRIDES change
    every pretraining config. Finished runs are skipped, and an interrupted run resumes.
    """
    if page is None:
        from solo_dimreg.config.folders import find_study

        find_study(name)  # a wrong one is refused before torch is imported

    from solo_dimreg.reports.comparison import write_report
    from solo_dimreg.reports.summary import results_table
    from solo_dimreg.studies.engine import run_study
    from solo_dimreg.studies.study import read_study
    from solo_dimreg.studies.workers import default_jobs

    out = out or Path("results") / name
    if page is not None:
        from solo_dimreg.studies.pages import benchmark_table, write_page

        write_page(page, name, files or [out / "results.json"], benchmark_table)
        click.echo(f"Page: {page}")
        return
    study = read_study(name).only(rows)
    study = study.changed(seeds=seeds, overrides=list(overrides), linear=list(linear_overrides))
    results = run_study(study, out, jobs or default_jobs(), click.echo)
    write_report(out, out)
    print_table(*results_table(results["summary"]))
    click.echo(f"Report: {out / 'report.html'}")
