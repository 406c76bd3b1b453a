"""``solo-dimreg bench``."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import click
from click.core import ParameterSource

from solo_dimreg.cli.output import example, page_options, print_table
from solo_dimreg.errors import ConfigError
from solo_dimreg.files import to_json

# The options that would change nothing beside another.
USELESS = {"launches": ("peers", "repeats", "steps"), "peers": ("steps",)}


@click.command("bench", epilog=example("solo-dimreg bench --repeats 3 --no-steps"))
@click.option("--json", "as_json_", is_flag=True, help="Print JSON.")
@click.option(
    "--repeats", type=click.IntRange(min=1), default=5, help="Number of rounds; the median is reported."
)
@click.option("--steps/--no-steps", default=True, help="Measure whole training steps.")
@click.option(
    "--launches", is_flag=True, help="Count device operations and waits instead, which needs no GPU."
)
@click.option("--peers", is_flag=True, help="Compare with lightly, solo-learn and a plain SVD instead.")
@page_options("results/bench.json")
def command(
    as_json_: bool,
    repeats: int,
    steps: bool,
    launches: bool,
    peers: bool,
    page: Path | None,
    files: tuple[Path, ...],
) -> None:
    """Measure the time and memory of losses and the monitor, not the accuracy as 'benchmark' does.

    Every cost is a ratio. Each function is compared with its textbook formulation, which runs in the same
    process. The exit status is 1 unless both give the same loss and gradient. The command takes minutes, and
    nothing else should run. With --json its output can be kept in a file, which --page reads.
    """
    context = click.get_current_context()
    for option, others in USELESS.items():
        for other in others if context.params[option] else ():
            if context.get_parameter_source(other) is ParameterSource.COMMANDLINE:
                raise ConfigError(f"--{option}: cannot be used with --{other}; give one of them.")
    if page is not None:
        from solo_dimreg.studies.pages import costs_tables, write_page
        from solo_dimreg.studies.peers import peers_table

        name, table = ("peers", peers_table) if peers else ("costs", costs_tables)
        write_page(page, name, files or [Path("results/bench.json")], table)
        click.echo(f"Page: {page}")
        return
    if launches:
        _count_launches(as_json_)
        return
    if peers:
        _compare_peers(as_json_, repeats)
        return
    from solo_dimreg.studies import bench

    costs = []
    for cost in bench.run(repeats, steps):
        costs.append(cost)
        click.echo(f"{cost.name}, {cost.shape}: {cost.of}: {cost.ratio:.3g}", err=True)
    if as_json_:
        click.echo(to_json({**bench.describe_machine(), "figures": [asdict(cost) for cost in costs]}))
    else:
        machine = bench.describe_machine()
        click.echo(", ".join(f"{name} {value}" for name, value in machine.items()))
        verdicts = {True: "yes", False: "NO", None: ""}
        rows = [[c.name, c.shape, c.of, f"{c.ratio:.3g}", verdicts[c.agrees]] for c in costs]
        print_table(["measured", "on", "ratio", "value", "same loss and gradient"], rows)
    if any(cost.agrees is False for cost in costs):
        raise SystemExit(1)


def _compare_peers(as_json: bool, repeats: int) -> None:
    from solo_dimreg.studies import peers
    from solo_dimreg.studies.bench import describe_machine

    found = [peers.compare(peer, repeats) for peer in peers.peers()]
    if as_json:
        click.echo(to_json({**describe_machine(), "peers": found}))
    else:
        print_table(peers.HEADER, [peers.cells(each) for each in found])


def _count_launches(as_json: bool) -> None:
    from solo_dimreg.studies.launches import run

    counts = list(run())
    if as_json:
        click.echo(to_json([asdict(each) for each in counts]))
        return
    click.echo("Device operations of ours, or of ours/the textbook's or solo-learn's:")
    columns = ("forward", "backward", "waits", "collectives")
    rows = []
    for (name, on), group in groupby(counts, key=lambda each: (each.name, each.on)):
        pair = list(group)
        rows.append([name, on, *("/".join(str(getattr(c, column)) for c in pair) for column in columns)])
    print_table(["function", "on", "forward", "back", "waits", "collectives"], rows)
