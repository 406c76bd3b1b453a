"""Third-party plugin packages, installed into a folder as a wheel would be."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path


def install(site: Path, package: str, source: str, plugin: str | None = None) -> None:
    """Installs a plugin package of one module into a folder, with the metadata that a wheel would bring."""
    module = package.replace("-", "_")
    (site / f"{module}.py").write_text(source)
    info = site / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[solo_dimreg]\n{plugin or module} = {module}\n")


def entries(site: Path) -> list[EntryPoint]:
    """The plugins that a folder of installed packages brings."""
    return [
        entry
        for dist in Distribution.discover(path=[str(site)])
        for entry in dist.entry_points
        if entry.group == "solo_dimreg"
    ]


def solo_dimreg(site: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """Runs the command line with a folder of installed packages on the path."""
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-m", "solo_dimreg", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        cwd=cwd,
        capture_output=True,
        text=True,
    )
