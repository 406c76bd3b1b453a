"""Run the rows and experiments of claims, each with each seed once, and decide the claims."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from solo_dimreg.errors import ConfigError, PluginError, unknown
from solo_dimreg.files import locked, read_numbers, write_json, write_text
from solo_dimreg.plots import save_png
from solo_dimreg.plugins import Registration, registered
from solo_dimreg.reports.run_files import parts_of, read_curves
from solo_dimreg.studies.benchmark import FIRST_SEED, run_row
from solo_dimreg.studies.claims.claim import RULE, Claim, Experiment, Outcome, decide
from solo_dimreg.studies.claims.measures import MEASURES, measure
from solo_dimreg.studies.claims.page import claims_page
from solo_dimreg.studies.claims.papers import builtin_claims
from solo_dimreg.studies.claims.pictures import draw_claims
from solo_dimreg.studies.claims.settings import DATASETS, SETTINGS, Setting
from solo_dimreg.studies.parallel import FINISHED, Job, execute
from solo_dimreg.studies.suites import Row, Suite

SEEDS = 8


def all_claims() -> dict[str, Claim]:
    """Return our claims and those of plugins, by name."""
    claims = {claim.name: claim for claim in builtin_claims()}
    for name, registration in registered("claims").items():
        if name in claims:
            raise PluginError(
                f"{registration.distribution} (plugin {registration.plugin!r}) registers the claim {name!r}, "
                "a name that we have. Uninstall or fix that package."
            )
        claims[name] = _checked(registration)
    return claims


def _checked(registration: Registration) -> Claim:
    claim = registration.value
    fault = ""
    if not isinstance(claim, Claim):
        fault = f"is not a Claim but a {type(claim).__name__}"
    elif claim.name != registration.name:
        fault = f"has the name {claim.name!r} itself"
    elif not claim.numbers or (missing := set(claim.measures) - set(MEASURES)):
        fault = f"has unknown measures: {sorted(missing)}" if claim.numbers else "has no numbers"
    if fault:
        raise PluginError(
            f"{registration.distribution} (plugin {registration.plugin!r}) registers a claim "
            f"{registration.name!r} that {fault}. Uninstall or fix that package."
        )
    return claim


def run_claims(
    out: Path,
    names: Sequence[str] = (),
    seeds: int = SEEDS,
    data: str = "patches",
    jobs: int = 1,
    overrides: Sequence[str] = (),
    linear_overrides: Sequence[str] = (),
    first_seed: int = FIRST_SEED,
    say: Callable[[str], None] = print,
) -> list[Outcome]:
    """Train what is missing, and decide the claims; finished runs are skipped, interrupted ones resume.

    Args:
        out: The folder of the results: ``claims.json``, ``claims.html``, ``claims.md`` and the runs.
        names: The names of the claims; all by default.
        seeds: The number of seeds, at least 2.
        data: A name in ``SETTINGS``; embedded data is written below ``datasets``.
        jobs: The number of runs at the same time.
        overrides: Changes to every pretraining config, as in Hydra.
        linear_overrides: Changes to the config of the linear probe.
        first_seed: The first seed.
        say: The function that prints the progress.

    Raises:
        ConfigError: A claim or a data set is unknown, data is missing, or there are too few seeds.
    """
    known = all_claims()
    for name in names:
        if name not in known:
            raise ConfigError(unknown("claim", name, known))
    if data not in SETTINGS:
        raise ConfigError(f"--data: {unknown('data', data, SETTINGS)}")
    if seeds < 2:
        raise ConfigError(f"--seeds: {seeds} is not allowed; an interval needs at least 2.")
    claims = [claim for name, claim in known.items() if not names or name in names]
    setting = SETTINGS[data]
    setting.write_data(transfer=any("transfer_acc1" in claim.measures for claim in claims))
    plan = _plan(claims, range(first_seed, first_seed + seeds))
    planned = [
        _job(what, seed, measures, setting, out, data, (overrides, linear_overrides))
        for what, seed, measures in plan
    ]
    results: list[dict[str, Any]] = [{} for _ in range(seeds)]
    with locked("--out", out):
        for number, result in execute(planned, jobs, say):
            what, seed, _ = plan[number]
            results[seed - first_seed][what.name] = result
    outcomes = decide(claims, results, list(known.values()))
    options = ["--data", data, "--seeds", str(seeds), "--first-seed", str(first_seed)]
    options += [text for override in overrides for text in ("--set", override)]
    options += [text for override in linear_overrides for text in ("--linear", override)]
    write_outcomes(out, outcomes, results, setting, range(first_seed, first_seed + seeds), options)
    return outcomes


def _plan(
    claims: Sequence[Claim], seeds: Sequence[int]
) -> list[tuple[Row | Experiment, int, tuple[str, ...]]]:
    """Return the rows and experiments with their seeds and measures, seed by seed, each once."""
    needed: dict[str, Row | Experiment] = {}
    measures: dict[str, dict[str, None]] = {}
    for claim in claims:
        wanted: list[Row | Experiment] = [*claim.experiments, *claim.rows]
        for what in wanted:
            if needed.setdefault(what.name, what) != what:
                raise ConfigError(f"Two claims name different runs {what.name!r}; rename one of them.")
            measures.setdefault(what.name, {}).update(dict.fromkeys(claim.measures))
    return [(what, seed, tuple(measures[name])) for seed in seeds for name, what in needed.items()]


def _job(
    what: Row | Experiment,
    seed: int,
    measures: Sequence[str],
    setting: Setting,
    out: Path,
    data: str,
    overrides: tuple[Sequence[str], Sequence[str]],
) -> Job:
    label = f"{what.name}, seed {seed}"
    if isinstance(what, Experiment):
        folder = out / "runs" / "experiments" / what.name / f"seed{seed}"
        return Job(label, folder, partial(run_experiment, what, seed, folder))
    name = Path(what.name, f"seed{seed}")
    elsewhere = out.parent / setting.shared / "runs" / name if setting.shared else None
    folder = out / "runs" / data / name
    suite = Suite(setting.folder, (), setting.overrides)
    train = partial(run_row, suite, setting.row(what), seed, folder, *overrides, elsewhere=elsewhere)
    run = partial(_train_and_measure, train, folder, measures, DATASETS / setting.other, overrides[1])
    return Job(label, folder, run)


def run_experiment(
    experiment: Experiment, seed: int, folder: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Return the values of an experiment; measure them unless a file has them."""
    file = folder / f"version{experiment.version}.json"
    if file.is_file():
        say(FINISHED)
    else:
        write_json(file, experiment.measure(seed))
    return read_numbers(file)


def _train_and_measure(
    train: Callable[..., dict[str, Any]],
    folder: Path,
    measures: Sequence[str],
    other: Path,
    linear_overrides: Sequence[str],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Return a row's results with its curves and measures; ``train`` does nothing for a finished run."""
    result = train(say=say)
    checkpoint = Path(result["checkpoint"])
    file = folder / f"{checkpoint.parent.name}-measures.json"
    known = read_numbers(file) if file.is_file() else {}
    missing = [name for name in measures if name not in known]
    if missing:
        known |= measure(checkpoint, other, linear_overrides, missing)
        write_json(file, known)
    return {**result, **known, "curves": read_curves(parts_of(checkpoint))}


def write_outcomes(
    out: Path,
    outcomes: Sequence[Outcome],
    results: Sequence[dict[str, Any]],
    setting: Setting,
    seeds: Sequence[int],
    options: Sequence[str],
) -> None:
    """Write ``claims.json``, ``claims.md``, ``claims.png`` and ``claims.html``.

    Args:
        out: The folder to write into.
        outcomes, results: The outcomes from :func:`decide`, and the results that it decided on.
        setting: The setting of the data.
        seeds: The seeds of the results.
        options: The options of the command line that repeat the run.
    """
    content = {
        "rule": RULE,
        "why": setting.why,
        "seeds": list(seeds),
        "options": list(options),
        "overrides": list(setting.overrides),
        "outcomes": [outcome.as_dict() for outcome in outcomes],
    }
    write_json(out / "claims.json", content)
    save_png(draw_claims(outcomes), out / "claims.png")
    for kind in ("md", "html"):
        page = claims_page(kind, outcomes, results, seeds, setting.why, shlex.join(options))
        write_text(out / f"claims.{kind}", page)
