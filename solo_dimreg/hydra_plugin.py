"""Hydra's way in: finds our configs beside the user's and registers our methods with solo-learn.

Shipped as ``hydra_plugins.solo_dimreg``, which *every* Hydra program of the environment imports, so this
module imports neither torch nor solo-learn, and does nothing unless the program has loaded solo-learn.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


def config_root() -> Path:
    """The folder that holds ``pretrain/`` and ``linear/``, in a wheel and in an editable install alike."""
    spec = importlib.util.find_spec("solo_dimreg")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("solo_dimreg is not installed")
    package = Path(spec.submodule_search_locations[0])
    shipped = package / "configs"
    return shipped if shipped.is_dir() else package.parent / "configs"


def counterpart(folder: Path) -> Path | None:
    """Our config folder for the same stage and data set as the user's, say ``scripts/pretrain/cifar``."""
    ours = config_root() / folder.parent.name / folder.name.replace("-", "")
    return ours if ours.is_dir() else None


class SoloDimregSearchPath(SearchPathPlugin):
    """Appends our configs to the search path of a solo-learn script and registers our methods."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra once, before it composes the config."""
        if "solo.methods" not in sys.modules:
            return
        from solo_dimreg.hosts import register

        register()
        for entry in list(search_path.get_path()):
            if entry.provider == "main" and entry.path:
                folder = Path(entry.path.removeprefix("file://"))
                ours = counterpart(folder)
                if ours and ours != folder:
                    search_path.append("solo_dimreg", f"file://{ours}")
