"""``solo-dimreg claims``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from solo_dimreg.cli.output import jobs_option, out_option, page_options

EXAMPLE = """\b
Example:
  solo-dimreg claims ldreg-lid-byol ldreg-accuracy-byol --seeds 8
  solo-dimreg claims --quick
"""


@click.command("claims", epilog=EXAMPLE)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--list", "list_", is_flag=True, help="Print the claims and their rules; run nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--seeds", default=8, show_default=True, help="Number of seeds, at least 2.")
@click.option("--first-seed", default=5, show_default=True, help="First seed; the others follow it.")
@click.option(
    "--data",
    default="patches",
    show_default=True,
    help="Data set: patches, digits, mnist, sprites or cifar10.",
)
@click.option("--quick", is_flag=True, help="Test only the eight claims that are cheap.")
@out_option("results/claims")
@jobs_option
@click.option("--set", "overrides", multiple=True, help="Override of every pretraining config, as in Hydra.")
@click.option("--linear", "linear_overrides", multiple=True, help="Override of the linear probe's config.")
@page_options("OUT/claims.json")
def command(
    names: tuple[str, ...],
    list_: bool,
    as_json: bool,
    seeds: int,
    first_seed: int,
    data: str,
    quick: bool,
    out: Path,
    jobs: int | None,
    overrides: tuple[str, ...],
    linear_overrides: tuple[str, ...],
    page: Path | None,
    files: tuple[Path, ...],
) -> None:
    """Test claims of the papers, each by a rule that is fixed beforehand.

    A claim holds, is not shown, or is contradicted. Every run is trained once, even if several claims need
    it. Finished runs are skipped, and interrupted runs resume.
    """
    if page is not None:
        from solo_dimreg.studies.pages import claims_tables, write_page

        write_page(page, "claims", files or [out / "claims.json"], claims_tables)
        click.echo(f"Page: {page}")
        return
    if list_:
        _list(names, as_json)
        return
    if quick and names:
        from solo_dimreg.errors import ConfigError

        raise ConfigError("--quick chooses the claims; give it or their names, not both.")
    from solo_dimreg.cli.output import print_table
    from solo_dimreg.studies.claims.page import HEADER, rows, summary
    from solo_dimreg.studies.claims.papers import QUICK
    from solo_dimreg.studies.claims.study import run_claims
    from solo_dimreg.studies.parallel import default_jobs

    say = (lambda text: click.echo(text, err=True)) if as_json else click.echo
    outcomes = run_claims(
        out,
        QUICK if quick else names,
        seeds,
        data,
        jobs or default_jobs(),
        overrides,
        linear_overrides,
        first_seed,
        say,
    )
    if as_json:
        click.echo((out / "claims.json").read_text())
        return
    keep = (0, 4, 5, 6)
    print_table([HEADER[i] for i in keep], [[row[i] for i in keep] for row in rows(outcomes)])
    click.echo(f"{summary(outcomes)}. Page: {out / 'claims.html'}")


def _list(names: tuple[str, ...], as_json: bool) -> None:
    """Print the claims and their rules."""
    from solo_dimreg.cli.output import print_table
    from solo_dimreg.studies.claims.claim import RULE
    from solo_dimreg.studies.claims.settings import SETTINGS
    from solo_dimreg.studies.claims.study import all_claims

    described = [claim.as_dict() for name, claim in all_claims().items() if not names or name in names]
    settings = {name: setting.why for name, setting in SETTINGS.items()}
    if as_json:
        click.echo(json.dumps({"rule": RULE, "settings": settings, "claims": described}, indent=2))
        return
    click.echo(RULE)
    click.echo()
    print_table(["--data", "reason"], [[name, why] for name, why in settings.items()])
    click.echo()
    print_table(["claim", "source", "says"], [_cells(each) for each in described])


def _cells(claim: Mapping[str, Any]) -> list[str]:
    """Return the name of a claim, its source and its sentence with the rule."""
    source = f"{claim['paper']}, {claim['place']}; published: {claim['published']}"
    says = f"{claim['sentence']} Above 0: {'; '.join(claim['numbers'])}. {claim['note']}"
    return [claim["name"], source, says.rstrip()]
