"""``solo-dimreg status``."""

from __future__ import annotations

from pathlib import Path

import click

from solo_dimreg.cli.output import PATH, example, print_table


@click.command("status", epilog=example("solo-dimreg status results/photos"))
@click.argument("out", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(out: Path, as_json: bool) -> None:
    """Say how far a comparison has come: its runs, their epochs, and the time that is left.

    OUT is the folder of its results, as in --out of compare, benchmark or claims. The comparison may run in
    another terminal or as jobs of a cluster.
    """
    from solo_dimreg.files import to_json
    from solo_dimreg.studies.status import status_line, status_of, status_table

    found = status_of(out.expanduser())
    if as_json:
        click.echo(to_json(found))
        return
    print_table(*status_table(found))
    click.echo(status_line(found))
