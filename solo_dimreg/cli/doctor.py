"""``solo-dimreg doctor``."""

from __future__ import annotations

import importlib
import importlib.util
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from solo_dimreg.hosts.environment import version_of

# Packages whose name is not that of their module.
PACKAGE_OF = {
    "PIL": "pillow",
    "cv2": "opencv-python",
    "deprecate": "pydeprecate",
    "hydra": "hydra-core",
    "pkg_resources": "setuptools<81",
    "pl_bolts": "lightning-bolts",
    "pytorch_lightning": "pytorch-lightning",
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
}
PACKAGES = ("torch", "torchvision", "timm", "numpy", "hydra-core", "lightning", "pytorch-lightning", "wandb")
# What works without a solo-learn, and the module that it needs.
LIBRARY = {
    "the library": "solo_dimreg.functional",
    "diagnose": "solo_dimreg.api.diagnosing",
    "report": "solo_dimreg.reports.runs",
    "the tracker": "solo_dimreg.api.tracker",
}
LIGHTNINGS = ("lightning", "pytorch_lightning")
MEND_CONTRACT = "install the versions of our requirements/, or a newer solo-dimreg"


@click.command("doctor")
@click.option("--library", is_flag=True, help="Judge the part that needs no solo-learn alone.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(library: bool, as_json: bool) -> None:
    """Say which solo-learn is here, what else there is, what is missing and the command that mends it.

    Exit status 1 if training is impossible; with --library, if the part without solo-learn does not work.
    """
    findings = examine()
    if as_json:
        click.echo(json.dumps(findings, indent=2))
    else:
        _print(findings)
    if findings["library_problems"] or (findings["problems"] and not library):
        click.get_current_context().exit(1)


def examine() -> dict[str, Any]:
    """Return what is here, as plain data.

    ``problems`` make training impossible, ``library_problems`` also the rest, ``hints`` neither.
    """
    from solo_dimreg.hydra_plugin import config_root, shipped_folders

    problems: list[dict[str, str]] = []
    library: list[dict[str, str]] = []
    hints: list[dict[str, str]] = []
    findings: dict[str, Any] = {
        "solo_dimreg": version_of("solo-dimreg"),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := version_of(name))},
        "configs": str(config_root()),
        "config_folders": shipped_folders(),
        "solo_learn": _solo_learn(problems),
        "gpu": _gpu(),
        "dali": _importable("nvidia.dali"),
        "hydra_plugin": _importable("hydra_plugins.solo_dimreg"),
        "plugins": _plugins(library),
        "works": _library(library),
        "problems": problems,
        "library_problems": library,
        "hints": hints,
    }
    if not findings["hydra_plugin"]:
        hints.append(
            _finding("solo-learn's own scripts will not find our methods", "pip install solo-dimreg")
        )
    if findings["gpu"] and not findings["dali"]:
        hints.append(_finding("no NVIDIA DALI, so no data.format: dali", "pip install 'solo-dimreg[dali]'"))
    if not any(map(_importable, LIGHTNINGS)):
        hints.append(_finding("no Lightning, so no callback", "pip install 'solo-dimreg[lightning]'"))
    if not _importable("wandb"):
        hints.append(_finding("no Weights & Biases, so no wandb.enabled: True", "pip install wandb"))
    problems.extend(library)
    return findings


def _library(problems: list[dict[str, str]]) -> list[str]:
    """Return what works without a solo-learn, tried by its import."""
    works = []
    for name, module in LIBRARY.items():
        try:
            importlib.import_module(module)
            works.append(name)
        except ImportError as error:
            package = (error.name or module).partition(".")[0]
            problems.append(_finding(f"{name} does not work: {error}", _install([package])))
    if any(map(_importable, LIGHTNINGS)):
        works.append("the Lightning callback")
    return works


def _install(modules: Sequence[str]) -> str:
    return "pip install " + " ".join(f"'{PACKAGE_OF.get(module, module)}'" for module in modules)


def _finding(what: str, mend: str) -> dict[str, str]:
    return {"what": what, "mend": mend}


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _solo_learn(problems: list[dict[str, str]]) -> dict[str, Any] | None:
    from solo_dimreg.errors import DimregError
    from solo_dimreg.hosts import register
    from solo_dimreg.hosts.contract import broken
    from solo_dimreg.hosts.imports import missing_modules
    from solo_dimreg.hosts.registration import MISSING, generation

    kind: str | None = None
    try:
        kind = generation()
        if kind is None:
            problems.append(_finding("no solo-learn is importable", MISSING.partition(". ")[2]))
            return None
        host = register()
    except DimregError as error:
        cause = error.__cause__
        named = [str(cause.name).partition(".")[0]] if isinstance(cause, ImportError) and cause.name else []
        spec = importlib.util.find_spec("solo")
        folders = list(spec.submodule_search_locations or []) if spec and kind else []
        missing = [name for each in folders for name in missing_modules(Path(each))]
        missing = sorted({*missing, *(name for name in named if not _importable(name))})
        what, mend = str(error).rstrip("."), "reinstall solo-learn's requirements"
        if missing:
            what, mend = f"solo-learn ({kind}) lacks {', '.join(missing)}", _install(missing)
        problems.append(_finding(what, mend))
        return {"generation": kind}
    for fault in broken(host.generation):
        problems.append(_finding(f"this solo-learn is not the one that we know: {fault}", MEND_CONTRACT))
    location = Path(str(sys.modules["solo"].__file__)).parent
    lightning = host.pl.__name__.replace(".pytorch", "")
    return {
        "generation": kind,
        "version": version_of("solo-learn") if kind == "published" else None,
        "location": str(location),
        "methods": len(host.methods),
        "lightning": f"{lightning} {getattr(host.pl, '__version__', '?')}",
    }


def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def _plugins(problems: list[dict[str, str]]) -> dict[str, str]:
    from solo_dimreg.errors import PluginError
    from solo_dimreg.plugins import get_manager

    try:
        return dict(get_manager().packages)  # type: ignore[attr-defined]
    except PluginError as error:
        problems.append(_finding(str(error), "mend or uninstall that package"))
        return {}


def _print(findings: dict[str, Any]) -> None:
    solo = findings["solo_learn"]
    click.echo(f"solo-dimreg  {findings['solo_dimreg']}, Python {findings['python']}")
    if solo and "location" in solo:
        version = f" {solo['version']}" if solo["version"] else ""
        click.echo(f"solo-learn   {solo['generation']}{version} at {solo['location']}, {solo['lightning']}")
    else:
        click.echo("solo-learn   not usable")
    click.echo("packages     " + ", ".join(f"{name} {v}" for name, v in findings["packages"].items()))
    click.echo(f"GPU          {findings['gpu'] or 'none: training runs on the CPU'}")
    click.echo(f"DALI         {'yes' if findings['dali'] else 'no'}")
    click.echo(f"configs      {findings['configs']}: --config-path {', '.join(findings['config_folders'])}")
    click.echo("plugins      " + ", ".join(f"{name} ({dist})" for name, dist in findings["plugins"].items()))
    for kind, found in (("problem", findings["problems"]), ("hint", findings["hints"])):
        for each in found:
            click.echo(f"{kind + ':':<12} {each['what']}. To mend: {each['mend']}")
    works = ", ".join(findings["works"]) or "nothing"
    click.echo(f"Training is impossible. What works: {works}." if findings["problems"] else "Ready to train.")
