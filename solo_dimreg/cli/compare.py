"""``solo-dimreg compare``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from solo_dimreg.cli.output import FOLDER, PATH, example, jobs_option, print_table, writable
from solo_dimreg.errors import ConfigError, unknown, warn

if TYPE_CHECKING:
    from solo_dimreg.studies.study import Study

EMBEDDED = ("digits", "mnist", "overlay", "patches")  # of study.WRITERS, which import torch


@click.command(
    "compare",
    epilog=example(
        'solo-dimreg compare byol ldreg_byol "byol +regularizers.decorrelation.weight=0.01" \\\n'
        "      --data photos --seeds 5",
        "solo-dimreg compare study.yaml --dry-run",
        "solo-dimreg compare trained_models/byol/offline-ab12cd34 --remedies --budget 2h",
    ),
)
@click.argument("rows", nargs=-1, required=True, metavar="ROW...")
@click.option("--data", default="", help="Folder of images, as for init; or digits, patches.")
@click.option("--seeds", type=click.IntRange(min=1), help="Number of seeds.  [default: 3, or the study's]")
@click.option("--more-seeds", type=click.IntRange(min=1), help="Add so many seeds to a finished comparison.")
@click.option("--baseline", help="Row that the others are compared with.  [default: the first]")
@click.option("--epochs", type=click.IntRange(min=1), help="Epochs of every training.")
@click.option("--steps", type=click.IntRange(min=1), help="Steps of every training, in whole epochs.")
@click.option("--probe", type=click.Choice(["linear", "knn", "both"]), help="Evaluation.  [default: both]")
@click.option("--probe-data", type=PATH, help="Evaluate on other images: train/, val/.")
@click.option("--set", "overrides", multiple=True, help="Override of every pretraining config, as in Hydra.")
@click.option("--linear", "linear_overrides", multiple=True, help="Override of the linear probe's config.")
@click.option(
    "--out", type=FOLDER, help="Folder of the results.  [default: results/NAME of the data or study]"
)
@click.option("--remedies", is_flag=True, help="Diagnose the ROW, a checkpoint or config; try what fits.")
@click.option("--budget", default="", help="With --remedies: the time for all of it, such as 15m or 2h.")
@jobs_option
@click.option(
    "--launcher",
    type=click.Choice(["local", "slurm", "submitit-local"]),
    default="local",
    help="Where the runs are executed: here, or as jobs of submitit.",
)
@click.option(
    "--launcher-option",
    "launcher_options",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of the jobs: timeout_min=240, slurm_partition=gpu; may be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Say what will run and what it will take; train nothing else.")
def command(
    rows: tuple[str, ...],
    data: str,
    seeds: int | None,
    more_seeds: int | None,
    baseline: str | None,
    epochs: int | None,
    steps: int | None,
    probe: str | None,
    probe_data: Path | None,
    overrides: tuple[str, ...],
    linear_overrides: tuple[str, ...],
    out: Path | None,
    remedies: bool,
    budget: str,
    jobs: int | None,
    launcher: str,
    launcher_options: tuple[str, ...],
    dry_run: bool,
) -> None:
    """Tell whether a method is better on your images, over several seeds, with intervals.

    A ROW is the name of a config or a method, or your own YAML file, with overrides in the same quotes. The
    configs are fitted to the images as by init; of your own files only the data is changed. Or give one
    study, by its name or as a YAML file; it may state claims of your own. Runs with the same seed share the
    order of the data and, where the networks are the same, the initial weights.

    With --remedies, a checkpoint or config is diagnosed, the remedies that fit are tried, and the one that is
    left is confirmed on new seeds; remedy.yaml is the config to train with.

    The comparison first says what it will take, and what cannot be told with so few images or seeds. The same
    command continues an interrupted comparison. compare.html has the answer.
    """
    from solo_dimreg.studies.launchers import launcher_of
    from solo_dimreg.studies.workers import default_jobs, threads_of

    if epochs and steps:
        raise ConfigError("--epochs and --steps are the length of the training; give one of them.")
    name = Path(data).resolve().name if data else Path(rows[0].split()[0]).stem
    out = writable(out or Path("results", name))
    if budget and not remedies:
        raise ConfigError(
            "--budget: is for --remedies; --epochs or --steps set the length of other trainings."
        )
    changes = {
        "seeds": seeds,
        "probe": probe,
        "probe_data": probe_data and str(probe_data.absolute()),
        "overrides": overrides,
        "linear": linear_overrides,
    }
    execute = launcher_of(launcher, launcher_options, out)
    _check_data(data)
    if remedies:
        _check_run(rows[0], data)
        if len(rows) > 1 or more_seeds or baseline or (budget and (epochs or steps)):
            raise ConfigError(
                "--remedies: takes one checkpoint or config, without --baseline and --more-seeds, and with "
                "either --budget or a length."
            )
        from solo_dimreg.studies.remedies import find_remedy

        find_remedy(
            rows[0], data, out, jobs or default_jobs(), click.echo, execute,
            budget=budget, seeds=seeds, length=(epochs, steps), changes=changes, dry_run=dry_run,
        )  # fmt: skip
        if not dry_run:
            click.echo(f"Page: {out / 'compare.html'}")
        return
    _check_names(rows, data)  # wrong ones are refused before torch is imported

    from solo_dimreg.reports.summary import duration_unit
    from solo_dimreg.studies.engine import run_study, seeds_of
    from solo_dimreg.studies.own_images import plan_of, study_of
    from solo_dimreg.studies.power import power_statement

    study = study_of(rows, data, out, (epochs, steps), changes)
    named = (name for name, row in study.rows.items() if baseline in (name, row.title))
    study = study.changed(baseline=next(named, baseline)).checked()
    chosen = seeds_of(study, out, more_seeds or 0)
    if study.questions and len(chosen) < 2:
        raise ConfigError(f"--seeds: {len(chosen)} is not allowed; the claims of {rows[0]} need at least 2.")
    plan = plan_of(study, chosen, out)
    labels = f"{plan.val} validation images" if plan.val else "no labels"
    several = f"seeds {chosen[0]} to {chosen[-1]}" if len(chosen) > 1 else f"seed {chosen[0]}"
    click.echo(f"{plan.runs} runs on {plan.train} training images ({labels}), {several}:")
    print_table(["row", "epochs", "steps", "finished"], plan.rows)
    for line in plan.idle:
        warn(line)
    jobs = jobs or default_jobs()
    if plan.steps and launcher != "slurm":
        each = plan.seconds_per_step(threads_of(jobs))
        seconds = each * plan.steps / min(jobs, plan.runs - plan.finished)
        divisor, unit = duration_unit(seconds)
        click.echo(
            f"{plan.steps} steps are left. One of the first row takes {each:.2g} s with this machine as busy "
            f"as now: about {seconds / divisor:.0f}{unit} for all, {jobs} at a time, and some more for the "
            f"evaluation. 'solo-dimreg status {out}' in another terminal says how far it is."
        )
    if plan.val:
        click.echo(power_statement(plan.val, len(chosen), max(len(study.rows) - 1, 1)))
    if dry_run:
        return
    _answer(study, run_study(study, out, jobs, click.echo, chosen, execute), out, rows[0])


def _answer(study: Study, results: dict[str, Any], out: Path, given: str) -> None:
    if study.questions:
        from solo_dimreg.studies.claims.page import write_outcomes

        about = {"why": study.why, "options": [], "overrides": study.settings}
        again = f"solo-dimreg compare {given}"
        write_outcomes(out, results, study.claims(), study.claims(), about, again)
        click.echo(f"Claims: {out / 'claims.html'}")
    if study.rows:
        from solo_dimreg.studies.compare_page import write_answer

        answer = write_answer(results, out)
        print_table(*answer.table())
        click.echo(answer.sentence())
        click.echo(f"Page: {out / 'compare.html'}")


def _check_names(rows: tuple[str, ...], data: str) -> None:
    """Raise if a row names no config and can be no method."""
    from solo_dimreg.config.folders import find_config, place_of_row, shipped_studies

    for row in rows:
        if re.match(r"[+~]*[\w.]+=", row):
            raise ConfigError(
                f"{row!r} is a setting and no row. It stands in the quotes of its row, as in "
                f"'byol {row}', or after --set for all rows."
            )
    if (data and data not in ("digits", "patches")) or (len(rows) == 1 and rows[0] in shipped_studies()):
        return
    for row in rows:
        config = [*row.split(), ""][0]
        if config.endswith((".yaml", ".yml")):
            if not Path(config).is_file():
                raise ConfigError(f"{row!r}: there is no file {config!r}; it must be a config.")
        elif config:
            try:
                find_config("pretrain", *place_of_row(config, data))
            except ConfigError as error:
                raise ConfigError(f"{row}: {error}") from error


def _check_data(data: str) -> None:
    """Raise if the data is neither a folder nor embedded."""
    if data and data not in EMBEDDED and not Path(data).is_dir():
        other = "" if "/" in data else f" {unknown('embedded data', data, EMBEDDED)}"
        raise ConfigError(f"--data: {data!r} is not a folder.{other}")


def _check_run(row: str, data: str) -> None:
    """Raise if a row can be neither a run nor a config."""
    path = Path(row)
    if path.is_dir() or (path.is_file() and path.suffix in (".ckpt", ".yaml", ".yml")):
        return
    if path.is_file():
        raise ConfigError(f"--remedies: {row!r} is no checkpoint, folder of a run or config.")
    here = f"--remedies: {row!r} does not exist (working directory {Path.cwd()})."
    if path.suffix == ".ckpt":
        raise ConfigError(here)
    try:
        _check_names((row,), data)
    except ConfigError as error:
        raise ConfigError(f"{here} As a config: {error}") from error
