"""Add our configs to Hydra's search path."""

from __future__ import annotations

import sys
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath

from solo_dimreg.config.folders import config_root, counterpart


def shipped(folder: Path) -> Path | None:
    """Return our folder for a ``--config-path`` that does not exist, such as ``scripts/pretrain/digits``."""
    linear = Path(sys.argv[0]).stem == "main_linear" or folder.parent.name == "linear"
    ours = config_root() / ("linear" if linear else "pretrain") / folder.name
    return ours if ours.is_dir() and not folder.exists() else None


def extend(search_path: ConfigSearchPath) -> None:
    """Append our configs after the configs of a solo-learn script.

    A config folder that does not exist is replaced by our folder of that name.
    """
    for entry in list(search_path.get_path()):
        if entry.provider == "main" and entry.path:
            folder = Path(entry.path.removeprefix("file://"))
            if ours := shipped(folder):
                entry.path = f"file://{ours}"
                continue
            ours = counterpart(folder)
            if ours and ours != folder:
                search_path.append("solo_dimreg", f"file://{ours}")
