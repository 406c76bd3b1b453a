"""Run the sections one after another and write one table, as Markdown and as JSON.

Until torch is found, this module needs the standard library alone. A section is a process with a time limit:
what it has found before it fails or is stopped is in the table.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from solo_dimreg.studies.gpu.rows import row_of

ROOT = Path(__file__).parents[3]
SECONDS = 480
NO_DEVICE = "No CUDA device: nothing was run. --cpu runs at small sizes what a CPU can run."
# A section ends by itself this long before it is stopped.
GRACE = 5
# What may be missing, and what does without it.
WANTED = {
    "timm": "the backbones",
    "scipy": "T-REGS and the metrics of trees",
    "lightning": "the training under Lightning",
    "pydantic": "DimensionalityMonitor and solo-learn",
    "hydra": "solo-learn",
    "omegaconf": "solo-learn",
    "pluggy": "solo-learn",
    "click": "the command solo-dimreg",
    "rich": "the command solo-dimreg",
    "matplotlib": "the pictures of the monitor",
    "sklearn": "the digits, on which solo-learn trains",
    "solo": "solo-learn",
    "nvidia.dali": "DALI",
    "triton": "torch.compile on CUDA",
    "pytest": "pytest -m gpu",
}


@dataclass(frozen=True)
class Section:
    """A part of the table, which a module or a file of the tests makes within a limit of seconds."""

    title: str
    script: str
    name: str
    seconds: int


CHECKS = "tests/gpu/checks.py"
BENCH = "solo_dimreg.studies.gpu.bench"
TRAINING = "solo_dimreg.studies.gpu.training"
# What needs the fewest packages comes first.
SECTIONS = (
    Section("Values and gradients against float64 on the CPU", CHECKS, "values", 45),
    Section("Times of losses", BENCH, "losses", 55),
    Section("Times of whole steps", BENCH, "steps", 60),
    Section("AMP, TensorFloat32, channels_last, waits of the host", CHECKS, "modes", 50),
    Section("Short trainings in a plain loop", TRAINING, "library", 40),
    Section("Several processes", CHECKS, "processes", 45),
    Section("CUDA graphs", CHECKS, "graphs", 30),
    Section("Short trainings under Lightning", TRAINING, "lightning", 25),
    Section("Short trainings through solo-learn", TRAINING, "solo-learn", 70),
    Section("torch.compile", CHECKS, "compiled", 60),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all sections and return the exit status: 1 if anything failed, 2 without a CUDA device."""
    parser = argparse.ArgumentParser(prog="./reproduce.sh gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--cpu", action="store_true", help="run what a CPU can run, at small sizes")
    parser.add_argument("--out", type=Path, default=Path("results/gpu"), help="folder of the table")
    parser.add_argument("--only", nargs="+", choices=[each.name for each in SECTIONS], help="some sections")
    parser.add_argument("--wheels", type=Path, help="folder of wheels for what this Python lacks")
    given = parser.parse_args(arguments)
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    environment = {**os.environ, "WANDB_MODE": "offline", "MPLBACKEND": "Agg", "PYTHONUNBUFFERED": "1"}
    paths = [str(ROOT)]
    if given.wheels is not None and given.wheels.is_dir():
        added = add_wheels(given.wheels, out / "packages")
        print(f"{given.wheels}: added {', '.join(added) or 'nothing'}.", flush=True)
        paths.append(str(out / "packages"))
    paths += [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    sys.path[1:1] = paths
    machine = describe_machine()
    if "error" in machine:
        print(f"error: {machine['error']}", file=sys.stderr)
        return 2
    if not machine["devices"] and not given.cpu:
        print(NO_DEVICE, file=sys.stderr)
        return 2
    device = "cpu" if given.cpu else "cuda"
    for name, what in machine["missing"].items():
        print(f"missing: {name} ({what})", flush=True)
    results: dict[str, list[dict[str, Any]]] = {}
    for section in SECTIONS:
        if given.only and section.name not in given.only:
            continue
        limit = min(section.seconds * (4 if given.cpu else 1), SECONDS - (time.monotonic() - start))
        print(f"{section.title} ...", flush=True)
        begin = time.monotonic()
        try:
            results[section.title] = run_section(section, device, limit, environment, out)
        except BaseException:
            found = read_rows(out / f"{section.name}.jsonl")
            results[section.title] = [*found, row_of("the section", "failed", "was interrupted")]
            write_table(out, machine, device, results, time.monotonic() - start)
            raise
        print(f"  {count(results[section.title])} in {time.monotonic() - begin:.0f} s", flush=True)
        write_table(out, machine, device, results, time.monotonic() - start)
    failed = [(title, row) for title, rows in results.items() for row in rows if row["status"] == "failed"]
    print(f"{out / 'gpu.md'}: {count([row for rows in results.values() for row in rows])} on {device}.")
    for title, row in failed:
        print(f"failed: {title}: {row['name']}: {row['note']}")
    return 1 if failed else 0


def describe_machine() -> dict[str, Any]:
    """Return the device and the versions, and what is missing with what needs it."""
    try:
        import torch
    except ImportError as error:
        return {"error": f"{sys.executable} cannot import torch: {error}"}
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    missing = {name: what for name, what in WANTED.items() if not _installed(name)}
    if _installed("pytorch_lightning"):
        missing.pop("lightning", None)
    return {
        "devices": devices,
        "torch": torch.__version__,
        "CUDA": torch.version.cuda,
        "driver": _driver(),
        "cuDNN": torch.backends.cudnn.version(),
        "Python": platform.python_version(),
        **{name: _version(name) for name in ("timm", "lightning", "pytorch-lightning")},
        "missing": missing,
    }


def _installed(name: str) -> bool:
    outer = name.partition(".")[0]
    return find_spec(outer) is not None and (outer == name or find_spec(name) is not None)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.partition("\n")[0].strip() or None


def add_wheels(folder: Path, target: Path) -> list[str]:
    """Install into ``target`` what lies in a folder of wheels and this Python lacks; return the names.

    Nothing is asked of an index, and the packages of the interpreter stay as they are. A wheel for another
    Python or system is named and left out.
    """
    names = sorted(
        {re.sub(r"[-_.]+", "-", each.name.partition("-")[0]).lower() for each in folder.glob("*.whl")}
    )
    lacking = [name for name in names if _version(name) is None]
    shutil.rmtree(target, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    command += ["--no-deps", "--no-compile", "--find-links", str(folder), "--target", str(target)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    environment["PIP_CONFIG_FILE"] = os.devnull

    def install(*some: str) -> str:
        """Return why some packages cannot be installed together, or nothing."""
        done = subprocess.run([*command, *some], env=environment, capture_output=True, text=True)
        return _last_line(done.stderr) if done.returncode else ""

    if not lacking or not install(*lacking):
        return lacking
    faults = {name: install(name) for name in lacking}  # to find those that do not fit
    for name, fault in faults.items():
        if fault:
            print(f"{folder}: {name} was not added: {fault}", flush=True)
    return [name for name, fault in faults.items() if not fault]


def run_section(
    section: Section, device: str, limit: float, environment: dict[str, str], out: Path
) -> list[dict[str, Any]]:
    """Run a section in a process of its own and return its rows; one more says how it failed."""
    if limit < 2 * GRACE:
        return [row_of("the section", "skipped", f"no time left of the {SECONDS} s of all sections")]
    rows, log = out / f"{section.name}.jsonl", out / f"{section.name}.log"
    rows.unlink(missing_ok=True)
    script = [str(ROOT / section.script)] if section.script.endswith(".py") else ["-m", section.script]
    command = [sys.executable, *script, section.name, device, str(rows), f"{limit - GRACE:.0f}"]
    failure = ""
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            command, env=environment, cwd=out, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            if status := process.wait(limit):
                failure = f"ended with status {status}"
        except subprocess.TimeoutExpired:
            failure = f"was stopped at its limit of {limit:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    found = read_rows(rows)
    if failure:
        last = _last_line(log.read_text(encoding="utf-8", errors="replace"))
        found.append(row_of("the section", "failed", f"{failure}; the end of {log.name}: {last}"))
    elif not found:
        found.append(row_of("the section", "failed", "made no row"))
    return found


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a file; a last line that a kill has cut off is left out."""
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "nothing"


def count(rows: Sequence[dict[str, Any]]) -> str:
    """Return how many rows passed, failed and were skipped."""
    statuses = [row["status"] for row in rows]
    return ", ".join(f"{statuses.count(each)} {each}" for each in ("passed", "failed", "skipped"))


def write_table(
    out: Path, machine: dict[str, Any], device: str, results: dict[str, list[dict[str, Any]]], seconds: float
) -> None:
    """Write ``gpu.json`` and ``gpu.md`` of what is known by now."""
    from solo_dimreg.files import write_json, write_text  # which needs filelock, as torch does

    content = {"device": device, "seconds": seconds, "machine": machine, "sections": results}
    write_json(out / "gpu.json", content)
    write_text(out / "gpu.md", as_markdown(content))


def as_markdown(content: dict[str, Any]) -> str:
    """Return the table of ``gpu.json``: the machine, then a heading and a table for each section."""
    from solo_dimreg.studies.pages import markdown_table

    machine = content["machine"]
    devices = ", ".join(machine["devices"]) if content["device"] == "cuda" else "a CPU, at small sizes"
    versions = [
        f"{name} {value}" for name, value in machine.items() if isinstance(value, (str, int)) and value
    ]
    everything = [row for rows in content["sections"].values() for row in rows]
    lines = [
        "# On a GPU" if content["device"] == "cuda" else "# On a CPU, without a GPU",
        "",
        f"On {devices}: {count(everything)}, in {content['seconds']:.0f} s. {', '.join(versions)}.",
    ]
    if machine["missing"]:
        missing = ", ".join(f"{name} ({what})" for name, what in machine["missing"].items())
        lines += ["", f"Missing: {missing}."]
    for title, rows in content["sections"].items():
        columns = list(dict.fromkeys(column for row in rows for column in row["values"]))
        cells = [
            [row["name"], row["status"], *(_cell(row["values"].get(each)) for each in columns), row["note"]]
            for row in rows
        ]
        lines += ["", f"## {title}", "", *markdown_table(["", "status", *columns, "note"], cells)]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return "" if value is None else str(value)
    large = math.isfinite(value) and abs(value) >= 1000
    return f"{value:.0f}" if large else f"{value:.3g}"


if __name__ == "__main__":
    # An end by a signal ends the section too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
