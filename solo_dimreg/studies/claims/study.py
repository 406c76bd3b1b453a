"""Runs what the claims need, each row and seed once, and decides them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from solo_dimreg.errors import ConfigError, PluginError, unknown
from solo_dimreg.files import write_json, write_text
from solo_dimreg.plugins import registered
from solo_dimreg.studies.benchmark import FIRST_SEED, run_row
from solo_dimreg.studies.claims.builtin import builtin_claims
from solo_dimreg.studies.claims.claim import RULE, Claim, Outcome, decide
from solo_dimreg.studies.claims.page import html_page, markdown
from solo_dimreg.studies.parallel import one_by_one, side_by_side
from solo_dimreg.studies.suites import Suite

# Short enough for many seeds; what is compared differs in nothing else.
SHORT = ("max_epochs=6", "scheduler.warmup_epochs=1")
DATA = {"digits": "digits", "patches": "patches"}
SEEDS = 8


def all_claims() -> dict[str, Claim]:
    """Ours and those of plugins, by name."""
    claims = {claim.name: claim for claim in builtin_claims()}
    for name, registration in registered("claims").items():
        if name in claims:
            raise PluginError(
                f"{registration.distribution} (plugin {registration.plugin!r}) registers the claim {name!r}, "
                "a name that we have. Uninstall or mend that package."
            )
        claims[name] = registration.value
    return claims


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
    """Trains what is missing, and decides; finished runs are skipped, interrupted ones resume.

    Args:
        out: Folder of the results: ``claims.json``, ``claims.html``, ``claims.md`` and the runs.
        names: Names of the claims; all by default.
        seeds: Number of seeds, at least 2.
        data: A name in ``DATA``.
        jobs: Number of runs at the same time.
        overrides: Changes to every pretraining config, as in Hydra.
        linear_overrides: Changes to the config of the linear probe.
        first_seed: The seeds are those from here on.
        say: Told of the progress.

    Raises:
        ConfigError: an unknown claim or data set, or too few seeds.
    """
    known = all_claims()
    for name in names:
        if name not in known:
            raise ConfigError(unknown("claim", name, known))
    if data not in DATA:
        raise ConfigError(f"--data: {unknown('data', data, DATA)}")
    if seeds < 2:
        raise ConfigError(f"--seeds: {seeds} is not allowed; an interval needs at least 2.")
    claims = [claim for name, claim in known.items() if not names or name in names]
    rows = {row.name: row for claim in claims for row in claim.rows}
    suite = Suite(DATA[data], tuple(rows.values()), SHORT)
    plan = [(row, first_seed + i) for i in range(seeds) for row in rows.values()]
    folder = out / "runs" / data
    runs = [
        partial(run_row, suite, row, seed, folder / row.name / f"seed{seed}", overrides, linear_overrides)
        for row, seed in plan
    ]
    labels = [f"{row.name}, seed {seed}" for row, seed in plan]
    results: list[dict[str, Any]] = [{} for _ in range(seeds)]
    jobs = min(jobs, len(runs))
    for number, result in (one_by_one if jobs == 1 else side_by_side)(runs, labels, jobs, say):
        row, seed = plan[number]
        curves = read_curves(Path(result["checkpoint"]).parent)
        results[seed - first_seed][row.name] = {**result, "curves": curves}
    outcomes = decide(claims, results)
    setting = f"{data}, {seeds} seeds from {first_seed} on, {', '.join((*SHORT, *overrides))}"
    content = {"rule": RULE, "setting": setting, "outcomes": [_plain(outcome) for outcome in outcomes]}
    write_json(out / "claims.json", content)
    write_text(out / "claims.md", markdown(outcomes, setting))
    write_text(out / "claims.html", html_page(outcomes, setting))
    return outcomes


def read_curves(folder: Path) -> dict[str, list[float]]:
    """The monitor's figures over the epochs, and AdaDim's alpha."""
    curves: dict[str, list[float]] = {}
    files = {"dimensionality.csv": None, "metrics.csv": {"train_alpha_epoch": "adadim_alpha"}}
    for name, wanted in files.items():
        if not (folder / name).is_file():
            continue
        with (folder / name).open(newline="") as file:
            for line in csv.DictReader(file):
                for column, value in line.items():
                    label = column if wanted is None else wanted.get(column)
                    if label and value:
                        curves.setdefault(label, []).append(float(value))
    return curves


def describe(claim: Claim) -> dict[str, Any]:
    """A claim with its rule's numbers, before anything is run."""
    return {
        **{key: getattr(claim, key) for key in ("name", "paper", "place", "sentence", "published", "unit")},
        "rows": [row.name for row in claim.rows],
        "numbers": [number.says for number in claim.numbers],
    }


def _plain(outcome: Outcome) -> dict[str, Any]:
    return {
        **describe(outcome.claim),
        "verdict": outcome.verdict,
        "p": outcome.p,
        "estimates": [asdict(each) for each in outcome.estimates],
        "values": outcome.values,
    }
