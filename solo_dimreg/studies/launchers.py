"""Execute the runs of a study as jobs of submitit: on a SLURM cluster, or as processes on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import yaml

from solo_dimreg.errors import ConfigError, DimregError, MissingPackageError
from solo_dimreg.files import write_json
from solo_dimreg.studies.workers import Launcher, Results, RunOne, Say, Task, local, progress, threads_of

# Without the first, submitit ends a job after some minutes. A job that is ended is queued again three times.
DEFAULTS: dict[str, Any] = {"timeout_min": 24 * 60, "name": "solo-dimreg"}
POLL = 1.0  # seconds between two looks at the files of the jobs
LATE = 120.0  # seconds after its end in which the result of a job may appear on a shared disk
UNKNOWN = 600.0  # seconds after which a job that sacct does not know is looked for in the queue
_missing: dict[str, float] = {}  # since when a job is in no queue


def launcher_of(name: str, options: Iterable[str], out: Path) -> Launcher:
    """Return what executes the runs of a study.

    Args:
        name: ``local``, ``slurm`` or ``submitit-local``.
        options: ``KEY=VALUE`` for submitit's ``AutoExecutor.update_parameters``, the values in YAML:
            ``timeout_min=240``, ``slurm_partition=gpu``, ``slurm_setup=[module load cuda]``.
        out: The folder of the results. The jobs of a start are in a folder of ``jobs`` there.

    Raises:
        ConfigError: There is no SLURM here, or an option is wrong.
        MissingPackageError: submitit is not installed.
    """
    given = dict(map(_read_option, options))
    if name == "local":
        if given:
            raise ConfigError("--launcher-option: needs --launcher slurm or submitit-local.")
        return local
    submitit = _submitit()
    folder = out / "jobs" / f"{datetime.now():%Y%m%d-%H%M%S}"
    try:
        executor = submitit.AutoExecutor(folder, cluster=name.removeprefix("submitit-"))
    except RuntimeError as error:
        raise ConfigError(
            f"--launcher {name}: {error} Give --launcher local, or start on a node with it."
        ) from error
    try:
        executor.update_parameters(**DEFAULTS | given)
    except (AssertionError, NameError, TypeError, ValueError) as error:
        raise ConfigError(f"--launcher-option: {' '.join(str(error).split())}") from error
    return partial(_execute, executor, name)


def _read_option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--launcher-option: {text!r} must be KEY=VALUE, such as slurm_partition=gpu.")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--launcher-option: {text!r} has a value that is not YAML.") from error


def _submitit() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise MissingPackageError(
            "--launcher: needs the package submitit: pip install 'solo-dimreg[sweeps]'."
        ) from error
    return submitit


def _execute(
    executor: Any, name: str, run: RunOne, tasks: Sequence[Task], out: Path, jobs: int, say: Say
) -> Results:
    """Yield each task with its result as its job ends; jobs of an earlier start are waited for.

    A cluster gets all jobs at once, as one array. On this machine, ``jobs`` of them run at a time.
    """
    study, known = study_key(out), read_jobs(out)
    foreign = [each for each in known.values() if each["study"] != study and is_active(job_of(each), each)]
    if foreign:
        ids = ", ".join(each["id"] for each in foreign)
        raise ConfigError(f"--out: jobs of another comparison are in {str(out)!r}: {ids}; wait, or end them.")
    running = {task: job_of(known[task]) for task in tasks if _is_used(known.get(task), study)}
    waiting = [task for task in tasks if task not in running]
    threads = threads_of(min(jobs, len(tasks))) if name == "submitit-local" and tasks else 0
    if running:
        say(f"{len(running)} of the runs have jobs of an earlier start; these are waited for.")
    failed: list[str] = []
    done, start = 0, time.perf_counter()
    try:
        while waiting or running:
            free = max(0, jobs - len(running)) if name == "submitit-local" else len(waiting)
            new, waiting = waiting[:free], waiting[free:]
            if new:
                submitted = executor.map_array(partial(run_job, run, threads), *zip(*new, strict=True))
                running |= dict(zip(new, submitted, strict=True))
                for task, job in zip(new, submitted, strict=True):
                    known[task] = {"id": job.job_id, "launcher": name, "study": study, "at": time.time()}
                    known[task] |= {"folder": str(executor.folder), "log": str(job.paths.stderr)}
                write_jobs(out, known)
                say(f"{len(new)} jobs of {name}: {', '.join(job.job_id for job in submitted)}")
            for task in [task for task, job in running.items() if not is_active(job, known[task])]:
                job, title = running.pop(task), f"{task[0]}, seed {task[1]}"
                done += 1
                try:
                    result = _result_of(job)
                except Exception as error:
                    failed.append(f"{title} (job {job.job_id}): {_reason(error, job)}")
                    say(f"[{done}/{len(tasks)}] {failed[-1]}")
                    known[task]["failed"] = _reason(error, job)
                    write_jobs(out, known)
                    continue
                say(progress(task, result, done, len(tasks), start))
                yield task, result
            if running:
                time.sleep(POLL)  # jobs end in processes of the cluster, which nothing here can wait for
    except BaseException:
        for job in running.values() if name == "submitit-local" else ():
            with suppress(OSError):
                os.kill(int(job.job_id), signal.SIGINT)
        if name == "slurm" and running:
            ids = ", ".join(sorted({job.job_id.partition("_")[0] for job in running.values()}))
            say(f"The jobs go on. The same command waits for them again; scancel {ids} ends them.")
        raise
    if failed:
        raise DimregError(f"{'; '.join(failed)}. The same command starts these runs again.")


def run_job(run: RunOne, threads: int, row: str, seed: int) -> dict[str, Any]:
    """Return the result of a run, in its job."""
    if threads:
        import torch

        torch.set_num_threads(threads)
    return run(row, seed)


def _again(*arguments: Any) -> Any:
    """Return the job that continues one which its time or another job ended."""
    from submitit.core.utils import DelayedSubmission

    return DelayedSubmission(*arguments)


def _result_of(job: Any) -> dict[str, Any]:
    """Return the result of a job that is not active; submitit would wait for one that SLURM has lost."""
    if not (job.paths.result_pickle.exists() or job.done()):
        raise DimregError("SLURM lost it: it is neither in sacct nor in squeue, and it left no result")
    return job.result()


def _reason(error: Exception, job: Any) -> str:
    """Return why a job has no result, and where its log is."""
    if isinstance(error, DimregError):
        return f"{error} (log: {job.paths.stderr})"
    trace = re.search(r"-{10,}\n(.*)\n-{10,}", str(error), re.DOTALL)
    lines = trace[1].strip().splitlines() if trace else []
    said = lines[-1].removeprefix("solo_dimreg.errors.") if lines else f"ended without a result ({job.state})"
    return f"{said} (log: {job.paths.stderr})"


def study_key(out: Path) -> str:
    """Return a name for what the runs of a study in a folder of results do; more seeds do not change it."""
    content = yaml.safe_load((out / "study.yaml").read_text(encoding="utf-8"))
    kept = {key: value for key, value in content.items() if key not in ("seeds", "baseline")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def read_jobs(out: Path) -> dict[Task, dict[str, Any]]:
    """Return the last job of each run, from ``jobs.json`` in the folder of the results."""
    file = out / "jobs.json"
    rows = json.loads(file.read_text()) if file.is_file() else {}
    return {(row, int(seed)): job for row, jobs in rows.items() for seed, job in jobs.items()}


def write_jobs(out: Path, jobs: dict[Task, dict[str, Any]]) -> None:
    """Write the last job of each run."""
    rows: dict[str, dict[str, Any]] = {}
    for (row, seed), job in jobs.items():
        rows.setdefault(row, {})[str(seed)] = job
    write_json(out / "jobs.json", rows)


def job_of(known: dict[str, Any]) -> Any:
    """Return submitit's job, also one that another process has submitted."""
    submitit = _submitit()
    kind = submitit.SlurmJob if known["launcher"] == "slurm" else submitit.LocalJob
    return kind(folder=known["folder"], job_id=known["id"])


def is_active(job: Any, known: dict[str, Any]) -> bool:
    """Return whether a job, of which ``jobs.json`` says what is known, waits or runs."""
    if job.paths.result_pickle.exists():
        return False
    if not job.done():
        return known["launcher"] != "slurm" or not _is_lost(job, known.get("at", 0.0))
    try:  # submitit does not know a process that an earlier start of this command has begun
        command = Path("/proc", job.job_id, "cmdline").read_bytes()
    except OSError:
        return False
    return b"submitit" in command and str(job.paths.folder).encode() in command


def _is_lost(job: Any, submitted: float) -> bool:
    """Return whether SLURM does not know a job; its accounting learns of one late, or is not there at all."""
    if time.time() - submitted < UNKNOWN or job.watcher.get_state(job.job_id, mode="cache") != "UNKNOWN":
        return False
    queued = _queued(job.job_id.partition("_")[0], int(time.time() / 60))
    if queued is None or job.job_id in queued:
        _missing.pop(job.job_id, None)
        return False
    return time.time() - _missing.setdefault(job.job_id, time.time()) >= LATE


@lru_cache(maxsize=64)
def _queued(array: str, minute: int) -> list[str] | None:
    """Return the jobs of an array that wait or run, asked once a minute; None if ``squeue`` cannot tell."""
    command = ["squeue", "-h", "-r", "-o", "%i", "-j", array]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    # An array that has ended is an error some minutes later.
    ended = "Invalid job id" in found.stderr
    return None if found.returncode and not ended else found.stdout.split()


def _is_used(known: dict[str, Any] | None, study: str) -> bool:
    """Return whether a run has a job of this study that waits, runs, or has ended with a result."""
    if not known or known["study"] != study or "failed" in known:
        return False
    job = job_of(known)
    return is_active(job, known) or (job.paths.result_pickle.exists() and job.exception() is None)


run_job.checkpoint = partial(_again, run_job)  # type: ignore[attr-defined]
