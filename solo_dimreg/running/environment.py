"""What a run was made with: versions and the machine, for the record."""

from __future__ import annotations

import importlib.metadata
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from solo_dimreg.hosts import Host


def version_of(distribution: str) -> str | None:
    """The version of an installed distribution, None if it is not installed."""
    if distribution == "solo-dimreg":  # the one that runs, which may be a checkout beside an older install
        return sys.modules["solo_dimreg"].__version__
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def describe_environment(host: Host, settings: DictConfig) -> dict[str, str]:
    """The versions that count and the device that a config trains on, as text.

    Args:
        host: The solo-learn in use.
        settings: The config of the pretraining, fitted to the machine.
    """
    import torch

    # A clone on the path has no version: that of the published one, installed beside it, is not its own.
    version = version_of("solo-learn") if host.generation == "published" else None
    return {
        "solo-learn": " ".join(filter(None, (host.generation, version))),
        "solo-dimreg": str(version_of("solo-dimreg")),
        "torch": torch.__version__,
        "device": _device(settings),
    }


def _device(settings: DictConfig) -> str:
    import torch

    from solo_dimreg.hosts import device_count

    if settings.get("accelerator") == "cpu" or not torch.cuda.is_available():
        threads = torch.get_num_threads()
        return f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    count = device_count(settings.get("devices", 1)) * settings.get("num_nodes", 1)
    return f"{count} x {torch.cuda.get_device_name(0)}"
