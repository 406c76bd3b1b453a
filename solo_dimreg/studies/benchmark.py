"""Pretrain several methods under the same conditions, evaluate them and compare them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from omegaconf import DictConfig, OmegaConf

from solo_dimreg.config.values import device_count, plain
from solo_dimreg.errors import ConfigError, unknown
from solo_dimreg.files import locked, write_json, write_text
from solo_dimreg.reports.summary import summarize
from solo_dimreg.solo_learn import Run, register
from solo_dimreg.solo_learn.checkpoints import read_checkpoint
from solo_dimreg.solo_learn.record import read_record
from solo_dimreg.studies.parallel import FINISHED, Job, execute
from solo_dimreg.studies.suites import SUITES, Row, Suite

FIRST_SEED = 5
# The probe runs in the comparing process, on one device.
ONE_DEVICE = ("devices=[0]", "strategy=auto", "sync_batchnorm=False")
KNN: dict[str, Any] = {"feature": "backbone", "k": 20, "temperature": 0.07, "distance": "cosine"}


def run_suite(
    name: str,
    out: Path,
    seeds: int = 1,
    rows: Sequence[str] = (),
    overrides: Sequence[str] = (),
    linear_overrides: Sequence[str] = (),
    jobs: int = 1,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Execute a comparison or the rest of it, write the results after every run, and report at the end.

    Args:
        name: A name in ``SUITES``.
        out: The folder of the results: ``results.json``, ``report.html``, ``report.md`` with its plots, and
            the runs.
        seeds: The number of seeds, from 5 on.
        rows: The names of the rows to run; all by default.
        overrides: Changes to every pretraining config, as in Hydra.
        linear_overrides: Changes to the config of the linear probe.
        jobs: The number of runs at the same time, see :func:`solo_dimreg.studies.parallel.execute`.
        say: The function that prints the progress.

    Returns:
        The content of ``results.json``.

    Raises:
        ConfigError: A suite or a row is unknown, data is missing, or a config cannot work.
    """
    from solo_dimreg.reports.comparison import write_report

    if name not in SUITES:
        raise ConfigError(unknown("benchmark", name, SUITES))
    suite = SUITES[name]
    known = {row.name for row in suite.rows}
    for wanted in rows:
        if wanted not in known:
            raise ConfigError(f"--row: {unknown('row', wanted, known)}")
    if seeds < 1:
        raise ConfigError(f"--seeds: {seeds} is not allowed; it must be a whole number >= 1.")
    _check_data(suite, overrides)
    chosen = [row for row in suite.rows if not rows or row.name in rows]
    plan = [(row, FIRST_SEED + i) for row in chosen for i in range(seeds)]
    planned = [job_of(suite, row, seed, out / "runs", overrides, linear_overrides) for row, seed in plan]
    results: dict[int, dict[str, Any]] = {}
    with locked("--out", out):
        for number, result in execute(planned, jobs, say):
            results[number] = result
            summary = write_results(name, out, [results[number] for number in sorted(results)])
        write_report(out, out)
    return summary


def _check_data(suite: Suite, overrides: Sequence[str]) -> None:
    if any(override.startswith("data.train_path=") for override in overrides):
        return
    missing = {path: what for path, what in suite.data.items() if not Path(path).exists()}
    if missing:
        wanted = "; ".join(f"{what}, into {path}/" for path, what in missing.items())
        raise ConfigError(f"This benchmark needs data that is not here. Put {wanted} (below {Path.cwd()}).")


def job_of(
    suite: Suite,
    row: Row,
    seed: int,
    out: Path,
    overrides: Sequence[str] = (),
    linear_overrides: Sequence[str] = (),
) -> Job:
    """Return the job that trains and evaluates one row with one seed in a folder below ``out``."""
    folder = out / row.name / f"seed{seed}"
    run = partial(run_row, suite, row, seed, folder, overrides, linear_overrides)
    return Job(f"{row.name}, seed {seed}", folder, run)


def run_row(
    suite: Suite,
    row: Row,
    seed: int,
    folder: Path,
    overrides: Sequence[str],
    linear_overrides: Sequence[str],
    say: Callable[[str], None],
    elsewhere: Path | None = None,
) -> dict[str, Any]:
    """Pretrain and evaluate one row with one seed, or the rest of it, below ``folder``.

    A finished run with exactly the same settings is reused, from there or from the folder ``elsewhere``.

    Returns:
        The metrics of the run, and its ``checkpoint``.
    """
    from solo_dimreg.config.composing import compose, fit_to_machine
    from solo_dimreg.config.folders import config_root
    from solo_dimreg.config.loading import parse_config
    from solo_dimreg.config.schema import Linear, Pretraining

    configs = config_root()
    fixed = ("checkpoint.enabled=True", f"++seed={seed}")
    settings = compose(
        "pretrain",
        str(configs / "pretrain" / suite.folder),
        row.config,
        (*suite.overrides, *row.overrides, *fixed, *overrides),
        register(),
    )
    folder_of_probe = str(configs / "linear" / suite.folder)
    linear = compose("linear", folder_of_probe, "linear", (*ONE_DEVICE, *linear_overrides))
    parse_config(register(), settings, Pretraining)
    # The checkpoint is not written yet.
    complete = OmegaConf.create({**plain(linear), "pretrained_feature_extractor": str(folder)})
    parse_config(register(), complete, Linear)
    for each in (settings, linear):
        fit_to_machine(each)
    wanted = json.dumps([register().generation, plain(settings), plain(linear)], sort_keys=True)
    fingerprint = hashlib.sha256(wanted.encode()).hexdigest()[:12]
    result_file = folder / fingerprint / "result.json"
    for finished in (result_file, *([elsewhere / fingerprint / "result.json"] if elsewhere else [])):
        if finished.is_file():
            say(FINISHED)
            return json.loads(finished.read_text())
    settings.checkpoint.dir = str(result_file.parent)
    run, seconds = _pretrain(settings, result_file.parent, say)
    record = read_record(run.folder)
    result = {
        "method": row.name,
        "seed": seed,
        "checkpoint": str(run.checkpoint),
        "epochs": settings.max_epochs,
        "pretrain_seconds": seconds,
        # The steps are the checkpoint's: a training that is killed after its last one records no steps.
        "steps": int(read_checkpoint(run.checkpoint)["global_step"]),
        **{key: record.get(key, {}) for key in ("data", "environment")},
        **_evaluate(run, linear, linear_overrides, say),
        "finished": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
    }
    write_json(result_file, result)
    return result


def _pretrain(settings: DictConfig, folder: Path, say: Callable[[str], None]) -> tuple[Run, float | None]:
    """Return the pretrained run and its seconds; None if a part of it was done before."""
    from solo_dimreg.files import checkpoint_epoch
    from solo_dimreg.training.pretraining import pretrain

    # An interruption can damage the checkpoint that is being written; the previous one still exists then.
    before = sorted(filter(is_zipfile, folder.rglob("*.ckpt")), key=checkpoint_epoch)
    done = checkpoint_epoch(before[-1]) + 1 if before else 0
    start = time.perf_counter()
    if done < settings.max_epochs:
        if before:
            say(f"  resuming after epoch {done} of {settings.max_epochs}")
            settings.resume_from_checkpoint = str(before[-1])
        if device_count(settings.devices) * settings.get("num_nodes", 1) > 1:
            _pretrain_apart(settings, folder)
        else:
            pretrain(settings)
    seconds = None if before else round(time.perf_counter() - start, 1)
    last = max(folder.rglob("*.ckpt"), key=checkpoint_epoch)
    return register().read_run(last), seconds


def _pretrain_apart(settings: DictConfig, folder: Path) -> None:
    """Pretrain in a separate process.

    Lightning starts the other processes by running the command of this one again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(settings))
    command = [sys.executable, "-m", "solo_dimreg", "pretrain", "-cp", str(folder), "-cn", "config"]
    if subprocess.run(command).returncode:
        raise ConfigError(f"The pretraining of {settings.name} failed; its output above says why.")


def _evaluate(
    run: Run, linear: DictConfig, linear_overrides: Sequence[str], say: Callable[[str], None]
) -> dict[str, Any]:
    from solo_dimreg.config.composing import evaluation_settings
    from solo_dimreg.metrics.numbers import representation_numbers
    from solo_dimreg.training.evaluation import extract_splits, knn_accuracy, linear_accuracy

    say("  evaluating")
    host = register()
    train, val = extract_splits(host, run)
    knn = knn_accuracy(host, train, val, **KNN)
    settings = evaluation_settings(linear, run, linear_overrides)
    same = all(settings.data[key] == run.settings.data[key] for key in ("dataset", "train_path", "val_path"))
    try:
        probe = linear_accuracy(host, run, settings, extracted=(train, val) if same else None)
    except ConfigError as error:
        raise ConfigError(f"The linear probe: {error} Fix it with --linear KEY=VALUE.") from error
    return {
        "linear_acc1": probe["acc1"],
        **({"linear_acc5": probe["acc5"]} if "acc5" in probe else {}),
        "knn_acc1": knn["acc1"],
        **representation_numbers(train.features, train.embeddings),
    }


def write_results(name: str, out: Path, results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Write ``results.json`` and return its content."""
    content = {
        "benchmark": name,
        "solo_learn": register().generation,
        "knn": KNN,
        "summary": summarize(results),
        "runs": list(results),
    }
    write_json(out / "results.json", content)
    return content
