"""Describe the versions and the machine of a run, for its record."""

from __future__ import annotations

import importlib.metadata
import platform
import sys

import torch


def version_of(distribution: str) -> str | None:
    """Return the version of an installed distribution; return None if it is not installed."""
    if distribution == "solo-dimreg":  # the running one, which may be a checkout beside an older install
        return sys.modules["solo_dimreg"].__version__
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def describe_environment(generation: str, device: torch.device | str, devices: int = 1) -> dict[str, str]:
    """Return the versions that matter and the device that computed, as text.

    Args:
        generation: Which solo-learn is in use, ``"current"`` or ``"published"``.
        device: The device of this process.
        devices: The number of devices over all processes.
    """
    # A clone on the path has no version; the published one may be installed beside it.
    version = version_of("solo-learn") if generation == "published" else None
    return {
        "solo-learn": " ".join(filter(None, (generation, version))),
        "solo-dimreg": str(version_of("solo-dimreg")),
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "timm": version_of("timm") or "not installed",
        "device": _device(torch.device(device), devices),
    }


def _device(device: torch.device, devices: int) -> str:
    if device.type == "cuda":
        return f"{devices} x {torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    named = f"{device.type.upper()}, {threads} thread{'s' if threads > 1 else ''}"
    return named if devices == 1 else f"{devices} processes, each {named}"
