"""The entry for Hydra: it adds our configs to the search path and registers our methods with solo-learn."""

from __future__ import annotations

import sys
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath


def config_root() -> Path:
    """Return the folder with ``pretrain/`` and ``linear/``, in a wheel or an editable install."""
    package = Path(__file__).parent
    shipped = package / "configs"
    return shipped if shipped.is_dir() else package.parent / "configs"


def shipped_folders(stage: str = "pretrain") -> list[str]:
    """Return the names of our config folders, which ``--config-path`` takes beside the user's own folders."""
    return sorted(folder.name for folder in (config_root() / stage).iterdir() if folder.is_dir())


def counterpart(folder: Path) -> Path | None:
    """Return our config folder for the stage and data set of a user's, such as ``scripts/pretrain/cifar``."""
    ours = config_root() / folder.parent.name / folder.name.replace("-", "")
    return ours if ours.is_dir() else None


def shipped(folder: Path) -> Path | None:
    """Return our folder for a ``--config-path`` that does not exist, such as ``scripts/pretrain/digits``."""
    linear = Path(sys.argv[0]).stem == "main_linear" or folder.parent.name == "linear"
    ours = config_root() / ("linear" if linear else "pretrain") / folder.name
    return ours if ours.is_dir() and not folder.exists() else None


def extend(search_path: ConfigSearchPath) -> None:
    """Register our methods, and append our configs after the configs of a solo-learn script.

    A config folder that does not exist is replaced by our folder of that name.
    """
    from solo_dimreg.solo_learn import register

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
