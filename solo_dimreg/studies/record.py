"""Keep the numbers of finished runs in one file, which is committed: what is there is not trained again.

A line is the JSON of one run: its row and seed, the digest of its settings, the machine, the numbers, and the
curves. It has no path of the machine, so that another machine finds it too.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from solo_dimreg.config.values import plain
from solo_dimreg.errors import ConfigError
from solo_dimreg.files import write_text
from solo_dimreg.reports.provenance import VERSIONS

# What differs between machines and not between runs.
OF_MACHINES = (
    "accelerator",
    "devices",
    "num_nodes",
    "num_workers",
    "precision",
    "strategy",
    "sync_batchnorm",
)
DIGITS, CURVE_DIGITS = 7, 4  # significant ones
LOOKS = 40  # at most, of a curve
Key = tuple[str, int, str]


def digest_of(asked: Sequence[Any], *configs: DictConfig) -> str:
    """Return a name for the settings of a run that are the same on every machine."""
    parts = [_portable(plain(config)) for config in configs]
    return hashlib.sha256(json.dumps([*asked, *parts], sort_keys=True).encode()).hexdigest()[:16]


def _portable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _portable(each) for key, each in value.items() if key not in OF_MACHINES}
    return value


def read_runs(file: Path) -> dict[Key, dict[str, Any]]:
    """Return the results in a file of records by row, seed and digest; nothing if there is no file.

    Raises:
        ConfigError: A line is damaged; the message names it.
    """
    found: dict[Key, dict[str, Any]] = {}
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            curves = {
                name: {int(epoch): value for epoch, value in curve.items()}
                for name, curve in entry.get("curves", {}).items()
            }
            key = entry["row"], entry["seed"], entry["digest"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"--record: line {number} of {file} is not the JSON of a run.") from error
        found[key] = {**entry, "curves": curves}
    return found


def write_runs(file: Path, found: Mapping[Key, Mapping[str, Any]]) -> None:
    """Write the file in one step, sorted, so that the same runs give the same file."""
    lines = [json.dumps(found[key], allow_nan=False, separators=(",", ":")) for key in sorted(found)]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, "".join(f"{line}\n" for line in lines))


def compact(row: str, seed: int, digest: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of a result: its numbers, rounded, the coarse curves, and the machine.

    Lists of a training such as the spectrum, and paths, are left out.
    """
    environment, data = result.get("environment") or {}, result.get("data") or {}
    ran = {name: environment[name] for name in VERSIONS if name in environment}
    others = ("row", "seed", "checkpoint", "reused", "curves", "environment", "data", "verdict", "chance")
    kept = {
        name: _kept(value)
        for name, value in result.items()
        if name not in others and not ("method" in result and isinstance(value, list))
    }
    if "verdict" in result:
        kept["verdict"] = {"kind": result["verdict"]["kind"]}
    if data:
        kept["data"] = {name: data[name] for name in ("train_images", "val_images") if name in data}
    curves = {name: _coarse(curve) for name, curve in (result.get("curves") or {}).items()}
    processor = torch.backends.cpu.get_cpu_capability()
    return {
        "row": row,
        "seed": seed,
        "digest": digest,
        **kept,
        "environment": ran | {"processor": processor},
        "curves": curves,
    }


def _coarse(curve: Mapping[int, float]) -> dict[int, Any]:
    """Return at most ``LOOKS`` points of a curve, the first and the last among them."""
    epochs = sorted(curve)
    if len(epochs) > LOOKS:
        epochs = [epochs[round(i * (len(epochs) - 1) / (LOOKS - 1))] for i in range(LOOKS)]
    return {epoch: _kept(curve[epoch], CURVE_DIGITS) for epoch in epochs}


def _kept(value: Any, digits: int = DIGITS) -> Any:
    if isinstance(value, Mapping):
        return {name: _kept(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_kept(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    return value
