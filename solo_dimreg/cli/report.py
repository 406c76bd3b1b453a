"""``solo-dimreg report``."""

from __future__ import annotations

from pathlib import Path

import click

from solo_dimreg.cli.output import FOLDER, PATH, example


@click.command("report", epilog=example("solo-dimreg report results/quick"))
@click.argument("folder", metavar="RESULTS_DIR", type=PATH)
@click.option("--out", type=FOLDER, help="Folder of the report.  [default: the results' own]")
def command(folder: Path, out: Path | None) -> None:
    """Compare the runs in RESULTS_DIR on one page: report.html, and report.md with its plots.

    RESULTS_DIR is a folder that 'solo-dimreg benchmark' wrote, or any folder with checkpoint folders below
    it, such as trained_models. The page shows the curves over the epochs and the differences between the
    configurations. For a benchmark it also shows accuracies and dimensionality over the seeds, spectra and
    wall time. Nothing is trained, and no network is needed.
    """
    from solo_dimreg.files import no_run

    folder = folder.expanduser()
    if not folder.is_dir():
        raise no_run(folder)

    from solo_dimreg.reports.comparison import write_report

    click.echo(f"Report: {write_report(folder, (out or folder).expanduser())}")
