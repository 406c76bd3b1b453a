"""``solo-dimreg claims``."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click

from solo_dimreg.cli.output import jobs_option, out_option, page_options
from solo_dimreg.errors import ConfigError

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
        raise ConfigError("--quick chooses the claims; give it or their names, not both.")
    from solo_dimreg.cli.output import print_table
    from solo_dimreg.studies.claims.page import HEADER, rows, summary, write_outcomes
    from solo_dimreg.studies.engine import run_study
    from solo_dimreg.studies.study import claims_study
    from solo_dimreg.studies.workers import default_jobs

    known = claims_study()
    study = known.variant(data).asking(known.quick if quick else names)
    study = study.changed(seeds=seeds, first_seed=first_seed)
    study = study.changed(overrides=list(overrides), linear=list(linear_overrides))
    if seeds < 2:
        raise ConfigError(f"--seeds: {seeds} is not allowed; an interval needs at least 2.")
    with redirect_stdout(sys.stderr if as_json else sys.stdout):
        results = run_study(study, out, jobs or default_jobs())
    options = ["--data", data, "--seeds", str(seeds), "--first-seed", str(first_seed)]
    options += [text for override in overrides for text in ("--set", override)]
    options += [text for override in linear_overrides for text in ("--linear", override)]
    about = {"why": study.why, "options": options, "overrides": study.settings}
    again = f"solo-dimreg claims NAME {shlex.join(options)}"
    outcomes = write_outcomes(out, results, study.claims(), known.claims(), about, again)
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
    from solo_dimreg.studies.study import claims_study

    study = claims_study()
    described = [claim.as_dict() for claim in study.asking(names).claims()]
    settings = {study.data: study.why, **{name: each.why for name, each in study.variants.items()}}
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
