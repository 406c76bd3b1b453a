"""``solo-dimreg bench``."""

from __future__ import annotations

from pathlib import Path

import click

from solo_dimreg.cli.output import page_options

EXAMPLE = """\b
Example:
  solo-dimreg bench --repeats 3 --no-steps
"""


@click.command("bench", epilog=EXAMPLE)
@click.option("--json", "as_json_", is_flag=True, help="Print JSON.")
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Number of rounds; the median is reported.",
)
@click.option("--large", is_flag=True, help="Also measure LDReg's loss on 8,192 features.")
@click.option("--steps/--no-steps", default=True, show_default=True, help="Measure whole training steps.")
@page_options("results/bench.json")
def command(
    as_json_: bool, repeats: int, large: bool, steps: bool, page: Path | None, files: tuple[Path, ...]
) -> None:
    """Measure the time and memory of losses and the monitor; 'benchmark' compares the accuracy of methods.

    Every cost is a ratio. Each function is compared with its textbook formulation, which runs in the same
    process. The exit status is 1 unless both give the same loss and gradient. The command takes minutes, and
    nothing else should run. With --json its output can be kept in a file, which --page reads.
    """
    if page is not None:
        from solo_dimreg.studies.pages import costs_tables, write_page

        write_page(page, "costs", files or [Path("results/bench.json")], costs_tables)
        click.echo(f"Page: {page}")
        return
    from solo_dimreg.cli.output import print_table
    from solo_dimreg.studies import bench

    figures = []
    for figure in bench.run(repeats, large, steps):
        figures.append(figure)
        click.echo(f"{figure.name}, {figure.shape}: {figure.of}: {figure.ratio:.3g}", err=True)
    if as_json_:
        click.echo(bench.as_json(figures))
    else:
        machine = bench.describe_machine()
        click.echo(", ".join(f"{name} {value}" for name, value in machine.items()))
        verdicts = {True: "yes", False: "NO", None: ""}
        rows = [[f.name, f.shape, f.of, f"{f.ratio:.3g}", verdicts[f.agrees]] for f in figures]
        print_table(["measured", "on", "ratio", "value", "same loss and gradient"], rows)
    if any(figure.agrees is False for figure in figures):
        raise SystemExit(1)
