"""Say how far a comparison has come, from the files of its runs; this needs no torch."""

from __future__ import annotations

import json
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

from solo_dimreg.errors import ConfigError
from solo_dimreg.files import checkpoint_epoch, is_locked
from solo_dimreg.studies.launchers import is_active, job_of, read_jobs
from solo_dimreg.studies.workers import STARTED, folder_of


def status_of(out: Path) -> dict[str, Any]:
    """Return the state of each run of the comparison in a folder; raise ConfigError if it has none.

    Returns:
        ``command`` (whether its command runs), ``going`` (whether that or a job does), ``seconds_left`` (None
        if it is unknown), the ``counts`` of the states, and ``runs``: each with ``row``, ``title``, ``seed``,
        ``state`` (finished, failed, running, waiting, interrupted, not started), and where they are known
        ``since``, ``epoch``, ``epochs``, ``job``, ``log`` and ``reason``.
    """
    file = out / "results.json"
    if not file.is_file():
        raise ConfigError(f"{str(out)!r} has no comparison; it must be the --out of one.")
    results = json.loads(file.read_text())
    if "planned_seeds" not in results:
        raise ConfigError(f"{file}: is of another command than compare.")
    ended = {(run["row"], run["seed"]): run for run in results["runs"]}
    jobs = read_jobs(out)
    active = {
        task: job
        for task, known in jobs.items()
        if task not in ended and is_active(job := job_of(known), known)
    }
    command = is_locked(out)
    going = command or bool(active)
    runs = []
    for seed in results["planned_seeds"]:
        for name, row in results["rows"].items():
            task = (name, seed)
            known = _state(folder_of(out, name, seed), ended.get(task), jobs.get(task, {}), active.get(task))
            if known["state"] == "not started" and command:
                known["state"] = "waiting"
            runs.append({"row": name, "title": row["title"], "seed": seed, "epochs": row["epochs"], **known})
    seconds = _seconds_left(runs) if going else None
    found = {"out": str(out), "command": command, "going": going, "seconds_left": seconds}
    return {**found, "counts": dict(Counter(run["state"] for run in runs)), "runs": runs}


def _state(folder: Path, ended: dict[str, Any] | None, job: dict[str, Any], active: Any) -> dict[str, Any]:
    """Return what the files in the folder of a run say, and its job."""
    started = max(folder.glob(f"*/{STARTED}"), key=lambda file: file.stat().st_mtime, default=None)
    found: dict[str, Any] = {key: job[each] for key, each in (("job", "id"), ("log", "log")) if each in job}
    if (folder / "log.txt").is_file():
        found.setdefault("log", str(folder / "log.txt"))
    if started:
        begun = json.loads(started.read_text())["at"]
        found["since"] = datetime.fromtimestamp(begun).isoformat(" ", "seconds")
        epochs = [checkpoint_epoch(each) + 1 for each in started.parent.rglob("*.ckpt")]
        found["epoch"] = max(epochs, default=0)
        result = started.parent / "result.json"
        if result.is_file():
            ended = ended or json.loads(result.read_text())
            found["seconds"] = round(result.stat().st_mtime - begun, 1)
    if ended:
        reason = {"reason": ended["failed"]} if ended.get("failed") else {}
        return {**found, "state": "failed" if reason else "finished", **reason}
    if started and (is_locked(started.parent) or (active and active.state == "RUNNING")):
        return {**found, "state": "running", "seconds": round(time.time() - begun, 1)}
    if active:
        return {**found, "state": "waiting"}
    if "failed" in job:
        return {**found, "state": "failed", "reason": job["failed"]}
    return {**found, "state": "interrupted" if started else "not started"}


def _seconds_left(runs: list[dict[str, Any]]) -> float | None:
    """Return the time that is left, as if every run took as long as those that ended, or that run."""
    left = [run for run in runs if run["state"] in ("running", "waiting")]
    took = [run["seconds"] for run in runs if run["state"] == "finished" and run.get("seconds")]
    going = [run for run in left if run["state"] == "running"]
    took = took or [run["seconds"] / run["epoch"] * run["epochs"] for run in going if run["epoch"]]
    if not took or not going:
        return None
    each = sum(took) / len(took)
    rest = sum(each * (1 - run.get("epoch", 0) / max(run["epochs"] or 1, 1)) for run in left)
    return round(rest / len(going), 1)


def status_table(status: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of a table of the runs."""
    return ["row", "seed", "state", "epoch", "since", "log or reason"], [
        [
            run["title"],
            str(run["seed"]),
            run["state"],
            f"{run['epoch']}/{run['epochs']}" if "epoch" in run else "",
            run.get("since", "") if run["state"] == "running" else "",
            run.get("reason") or (run.get("log", "") if run["state"] in ("running", "interrupted") else ""),
        ]
        for run in status["runs"]
    ]


def status_line(status: dict[str, Any]) -> str:
    """Return a line with the counts, and the time that is left."""
    counts = ", ".join(f"{count} {state}" for state, count in status["counts"].items())
    if not status["going"]:
        unfinished = len(status["runs"]) > sum(status["counts"].get(key, 0) for key in ("finished", "failed"))
        end = "Nothing runs; the same compare command continues." if unfinished else "It has ended."
    elif status["seconds_left"] is None:
        end = "The time that is left is not known yet."
    else:
        end = f"About {status['seconds_left'] / 60:.0f} min are left, with the machine as busy as now."
    alone = " Its command has ended, but not these jobs: start it again." if status["going"] else ""
    return f"{counts}. {end}{'' if status['command'] else alone}"
