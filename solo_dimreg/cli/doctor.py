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

from solo_dimreg.cli.output import example, print_table

# Packages whose name differs from the name of their module.
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
# The parts that work without a solo-learn, and the module that each needs.
LIBRARY = {
    "the library": "solo_dimreg.functional",
    "diagnose": "solo_dimreg.diagnosis.python",
    "report": "solo_dimreg.reports.runs",
    "the tracker": "solo_dimreg.monitor.tracker",
}
LIGHTNINGS = ("lightning", "pytorch_lightning")
FIX_CONTRACT = "install the versions of our requirements/, or a newer solo-dimreg"


@click.command("doctor", epilog=example("solo-dimreg doctor"))
@click.option("--library", is_flag=True, help="Judge only the part that needs no solo-learn.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(library: bool, as_json: bool) -> None:
    """Check this environment and name what is missing, with the command that installs it.

    The exit status is 1 if training is impossible. With --library it is 1 if the part that needs no
    solo-learn does not work.
    """
    findings = examine()
    if as_json:
        click.echo(json.dumps(findings, indent=2))
    else:
        _print(findings)
    if findings["library_problems"] or (findings["problems"] and not library):
        click.get_current_context().exit(1)


def examine() -> dict[str, Any]:
    """Return the state of this environment as plain data.

    ``problems`` make training impossible. ``library_problems`` also break the part that needs no solo-learn.
    ``hints`` do neither.
    """
    import torch

    from solo_dimreg.config.folders import config_root, shipped_folders
    from solo_dimreg.solo_learn.record import version_of

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
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "dali": _importable("nvidia.dali"),
        "hydra_plugin": _importable("hydra_plugins.solo_dimreg"),
        "plugins": _plugins(library),
        "works": _library(library),
        "problems": problems,
        "library_problems": library,
        "hints": hints,
    }
    own = "solo-learn's own scripts will not find our methods"
    dali = findings["gpu"] and not findings["dali"]
    lightning = any(map(_importable, LIGHTNINGS))
    for lacking, what, package in (
        (not findings["hydra_plugin"], own, "solo-dimreg"),
        (dali, "no NVIDIA DALI, so no data.format: dali", "'solo-dimreg[dali]'"),
        (not lightning, "no Lightning, so no callback", "'solo-dimreg[lightning]'"),
        (not _importable("wandb"), "no Weights & Biases, so no wandb.enabled: True", "wandb"),
    ):
        if lacking:
            hints.append(_finding(what, f"pip install {package}"))
    problems.extend(library)
    return findings


def _library(problems: list[dict[str, str]]) -> list[str]:
    """Return the parts that work without a solo-learn, by importing each."""
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


def _finding(what: str, fix: str) -> dict[str, str]:
    return {"what": what, "mend": fix}


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _solo_learn(problems: list[dict[str, str]]) -> dict[str, Any] | None:
    from solo_dimreg.errors import DimregError
    from solo_dimreg.solo_learn import register
    from solo_dimreg.solo_learn.contract import missing_names, missing_packages
    from solo_dimreg.solo_learn.record import version_of
    from solo_dimreg.solo_learn.registration import MISSING, generation

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
        named = [name for name in named if not _importable(name)]
        missing = sorted({*named, *(missing_packages(kind) if kind else ())})
        what, fix = str(error).rstrip("."), "reinstall solo-learn's requirements"
        if missing:
            what, fix = f"solo-learn ({kind}) lacks {', '.join(missing)}", _install(missing)
        problems.append(_finding(what, fix))
        return {"generation": kind}
    for fault in missing_names(host.generation):
        problems.append(_finding(f"this solo-learn is not the one that we know: {fault}", FIX_CONTRACT))
    location = Path(str(sys.modules["solo"].__file__)).parent
    lightning = host.pl.__name__.replace(".pytorch", "")
    return {
        "generation": kind,
        "version": version_of("solo-learn") if kind == "published" else None,
        "location": str(location),
        "methods": len(host.methods),
        "lightning": f"{lightning} {getattr(host.pl, '__version__', '?')}",
    }


def _plugins(problems: list[dict[str, str]]) -> dict[str, str]:
    from solo_dimreg.errors import PluginError
    from solo_dimreg.plugins import get_manager

    try:
        return dict(get_manager().packages)  # type: ignore[attr-defined]
    except PluginError as error:
        problems.append(_finding(str(error), "fix or uninstall that package"))
        return {}


def _print(findings: dict[str, Any]) -> None:
    solo = findings["solo_learn"]
    found = "not usable"
    if solo and "location" in solo:
        version = f" {solo['version']}" if solo["version"] else ""
        found = f"{solo['generation']}{version} at {solo['location']}, {solo['lightning']}"
    rows = [
        ["solo-dimreg", f"{findings['solo_dimreg']}, Python {findings['python']}"],
        ["solo-learn", found],
        ["packages", ", ".join(f"{name} {version}" for name, version in findings["packages"].items())],
        ["GPU", findings["gpu"] or "none: training runs on the CPU"],
        ["DALI", "yes" if findings["dali"] else "no"],
        ["configs", findings["configs"]],
        ["--config-path", ", ".join(findings["config_folders"])],
        ["plugins", ", ".join(f"{name} ({package})" for name, package in findings["plugins"].items())],
    ]
    print_table(["part", "found"], rows)
    # A line each, since a command that is wrapped cannot be copied.
    for kind, those in (("problem", findings["problems"]), ("hint", findings["hints"])):
        for each in those:
            click.echo(f"{kind}: {each['what']}. To fix it: {each['mend']}")
    works = ", ".join(findings["works"]) or "nothing"
    click.echo(f"Training is impossible. What works: {works}." if findings["problems"] else "Ready to train.")
