"""Hydra's way in: finds our configs beside the user's and registers our methods with solo-learn."""

from __future__ import annotations

import sys
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath


def config_root() -> Path:
    """The folder that holds ``pretrain/`` and ``linear/``, in a wheel and in an editable install alike."""
    package = Path(__file__).parent
    shipped = package / "configs"
    return shipped if shipped.is_dir() else package.parent / "configs"


def shipped_folders(stage: str = "pretrain") -> list[str]:
    """What ``--config-path`` takes beside the user's own folders."""
    return sorted(folder.name for folder in (config_root() / stage).iterdir() if folder.is_dir())


def counterpart(folder: Path) -> Path | None:
    """Our config folder for the same stage and data set as the user's, say ``scripts/pretrain/cifar``."""
    ours = config_root() / folder.parent.name / folder.name.replace("-", "")
    return ours if ours.is_dir() else None


def shipped(folder: Path) -> Path | None:
    """Our folder for a ``--config-path`` that does not exist: ``digits``, or ``scripts/pretrain/digits``."""
    linear = Path(sys.argv[0]).stem == "main_linear" or folder.parent.name == "linear"
    ours = config_root() / ("linear" if linear else "pretrain") / folder.name
    return ours if ours.is_dir() and not folder.exists() else None


def extend(search_path: ConfigSearchPath) -> None:
    """Registers our methods, and appends our configs behind those of a solo-learn script.

    A config folder that is not there, but that we have, is ours.
    """
    from solo_dimreg.hosts import register

    register()
    for entry in list(search_path.get_path()):
        if entry.provider == "main" and entry.path:
            folder = Path(entry.path.removeprefix("file://"))
            if ours := shipped(folder):
                entry.path = f"file://{ours}"
                continue
            ours = counterpart(folder)
            if ours and ours != folder:
                search_path.append("solo_dimreg", f"file://{ours}")
