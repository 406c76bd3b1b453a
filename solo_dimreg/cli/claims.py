"""``solo-dimreg claims``."""

from __future__ import annotations

import json
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from solo_dimreg.cli.output import FILE_TO_WRITE, FOLDER, example, jobs_option, print_table, writable
from solo_dimreg.errors import ConfigError, unknown

if TYPE_CHECKING:
    from solo_dimreg.studies.study import Study


@click.command(
    "claims",
    epilog=example(
        "solo-dimreg claims ldreg-lid-byol ldreg-accuracy-byol --seeds 8",
        "solo-dimreg claims --quick",
        "solo-dimreg claims --study evidence --record docs/data/evidence.jsonl",
    ),
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--list", "list_", is_flag=True, help="Print the claims and their rules; run nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--study", "study_name", default="claims", help="Study with the claims, or YAML.")
@click.option("--seeds", default=8, help="Number of seeds, at least 2.")
@click.option("--first-seed", default=5, help="First seed; the others follow it.")
@click.option("--data", help="Data set: patches, digits, mnist, sprites or cifar10.  [default: the study's]")
@click.option("--quick", is_flag=True, help="Test only the eight claims that are cheap.")
@click.option(
    "--record", type=FILE_TO_WRITE, help="File of finished runs, read and written: none runs twice."
)
@click.option("--recorded", is_flag=True, help="With --record: train nothing, decide what the file holds.")
@click.option("--out", type=FOLDER, help="Folder of the results.  [default: results/STUDY]")
@jobs_option
@click.option("--set", "overrides", multiple=True, help="Override of every pretraining config, as in Hydra.")
@click.option("--linear", "linear_overrides", multiple=True, help="Override of the linear probe's config.")
def command(
    names: tuple[str, ...],
    list_: bool,
    as_json: bool,
    study_name: str,
    seeds: int,
    first_seed: int,
    data: str | None,
    quick: bool,
    record: Path | None,
    recorded: bool,
    out: Path | None,
    jobs: int | None,
    overrides: tuple[str, ...],
    linear_overrides: tuple[str, ...],
) -> None:
    """Test claims of the papers, each by a rule that is fixed beforehand.

    A claim holds here, is not shown here, or the opposite holds here; a formula can be contradicted. Every
    run is trained once, even if several claims need it. Finished runs are skipped, and interrupted ones
    resume.
    """
    out = out or Path("results", Path(study_name).stem)
    if study_name == "claims":
        _check_names(names, None if list_ else data)  # wrong ones are refused before torch is imported
    if list_:
        _list(study_name, names, as_json)
        return
    if recorded and record is None:
        raise ConfigError("--recorded decides what a file of finished runs holds; name it by --record.")
    if quick and names:
        raise ConfigError("--quick chooses the claims; give it or their names, not both.")
    if seeds < 2:
        raise ConfigError(f"--seeds: {seeds} is not allowed; an interval needs at least 2.")
    from solo_dimreg.studies.claims.page import HEADER, counted, rows, write_outcomes
    from solo_dimreg.studies.engine import run_study
    from solo_dimreg.studies.workers import default_jobs

    out = writable(out)
    known = _study(study_name)
    data = data or known.data
    study = known.variant(data).asking(known.quick if quick else names)
    study = study.changed(seeds=seeds, first_seed=first_seed)
    study = study.changed(overrides=list(overrides), linear=list(linear_overrides))
    with redirect_stdout(sys.stderr if as_json else sys.stdout):
        results = run_study(study, out, jobs or default_jobs(), record=record, train=not recorded)
    options = ["--study", study_name] if study_name != "claims" else []
    options += ["--data", data, "--seeds", str(seeds), "--first-seed", str(first_seed)]
    options += [text for override in overrides for text in ("--set", override)]
    options += [text for override in linear_overrides for text in ("--linear", override)]
    about: dict[str, Any] = {"why": study.why, "options": options, "overrides": study.settings}
    about["headlines"] = study.headlines
    again = f"solo-dimreg claims NAME {shlex.join(options)}"
    outcomes = write_outcomes(out, results, study.claims(), known.claims(), about, again)
    told = [each.as_dict() for each in outcomes]
    if as_json:
        click.echo((out / "claims.json").read_text())
        return
    keep = (0, 4, 6)
    print_table([HEADER[i] for i in keep], [[row[i] for i in keep] for row in rows(told)])
    click.echo(f"{counted(told)}. Page: {out / 'claims.html'}")


def _study(name: str) -> Study:
    """Return a study with claims; ours of the papers holds those of plugins too."""
    from solo_dimreg.studies.study import claims_study, read_study

    study = claims_study() if name == "claims" else read_study(name)
    if not study.questions:
        raise ConfigError(f"--study: {name} has no questions; it must be a study with claims.")
    return study


def _check_names(names: tuple[str, ...], data: str | None) -> None:
    """Raise if there is no such data or no such claim; a plugin's claims are known only later."""
    from importlib.metadata import entry_points

    import yaml

    from solo_dimreg.config.folders import find_study

    file = find_study("claims")
    study = yaml.safe_load(file.read_text(encoding="utf-8"))
    if data is not None and data not in (known := (study["data"], *study["variants"])):
        raise ConfigError(f"--data: {unknown('data', data, known)}")
    if not names or entry_points(group="solo_dimreg"):
        return
    parts = [yaml.safe_load((file.parent / part).read_text(encoding="utf-8")) for part in study["parts"]]
    claims = {name for each in (study, *parts) for name in each.get("questions", ())}
    for name in names:
        if name not in claims:
            raise ConfigError(unknown("claim", name, claims))


def _list(study_name: str, names: tuple[str, ...], as_json: bool) -> None:
    from solo_dimreg.studies.claims.claim import RULE

    study = _study(study_name)
    described = [claim.as_dict() for claim in study.asking(names).claims()]
    settings = {study.data: study.why, **{name: each.why for name, each in study.variants.items()}}
    if as_json:
        click.echo(json.dumps({"rule": RULE, "settings": settings, "claims": described}, indent=2))
        return
    click.echo(RULE)
    click.echo()
    print_table(["--data", "reason"], [[name, why] for name, why in settings.items()])
    click.echo()
    cells = []
    for claim in described:
        source = f"{claim['paper']}, {claim['place']}; published: {claim['published']}"
        rule = "; ".join(f"{each['says']} must be {each['to_be']}" for each in claim["numbers"])
        says = f"{claim['sentence']} It holds if: {rule}. {claim['note']}"
        cells.append([claim["name"], source, says.rstrip()])
    print_table(["claim", "source", "says"], cells)
