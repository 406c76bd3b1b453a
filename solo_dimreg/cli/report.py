"""``solo-dimreg report``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("report")
@click.argument("folder", metavar="RESULTS_DIR", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the report.  [default: the results' own]",
)
def command(folder: Path, out: Path | None) -> None:
    """Compare the runs in RESULTS_DIR on one page: report.html, and report.md with its plots.

    RESULTS_DIR is a folder that 'solo-dimreg benchmark' wrote, or any with checkpoint folders below it, such
    as trained_models. Of the latter it shows the curves over the epochs and in what the configurations
    differ; of a benchmark also accuracies and dimensionality over the seeds, spectra and wall time. No
    training, no network.

    \b
    Example:
      solo-dimreg report results/quick
    """
    from solo_dimreg.reports.comparison import write_report

    folder = folder.expanduser()
    click.echo(f"Report: {write_report(folder, (out or folder).expanduser())}")
