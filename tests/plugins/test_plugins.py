from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from plugin_packages import entries, install, solo_dimreg

from solo_dimreg import __version__ as package_version
from solo_dimreg.errors import PluginError
from solo_dimreg.plugins import manager, registered
from solo_dimreg.plugins.manager import load_plugins

# A whole third-party package, as its author would write it: the ten lines that the README shows.
DECOV = """
import torch
from torch import nn
from solo_dimreg.plugins import hookimpl

class VarianceHinge(nn.Module):
    def __init__(self, target=1.0):
        super().__init__()
        self.target = target

    def forward(self, views, momentum_views=()):
        return torch.stack([torch.relu(self.target - view.std(dim=0)).mean() for view in views]).mean()

@hookimpl
def register_regularizers():
    return {"variance_hinge": VarianceHinge}
"""


def test_every_built_in_is_registered_once_whatever_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An older install of ours names them, and one that is gone; a third party's comes beside them.
    info = tmp_path / "solo_dimreg-0.0.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: solo-dimreg\nVersion: 0.0.9\n")
    (info / "entry_points.txt").write_text(
        "[solo_dimreg]\nldreg = solo_dimreg.plugins.ldreg\nold = solo_dimreg.plugins.gone\n"
    )
    install(tmp_path, "variance-hinge", DECOV)
    monkeypatch.syspath_prepend(tmp_path)
    packages = manager.get_manager.__wrapped__().packages
    ours = [name for name, package in packages.items() if package == "solo-dimreg"]
    assert ours == list(manager.BUILT_IN) and packages["variance_hinge"] == "variance-hinge"


def test_a_checkout_that_was_never_installed_is_whole(tmp_path: Path) -> None:
    """A copy on the path, with every installed distribution of ours hidden."""
    root = Path(manager.__file__).parents[2]
    for part in ("solo_dimreg", "configs"):
        shutil.copytree(root / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    program = (
        "import importlib.metadata as metadata, json\n"
        "named = metadata.Distribution.discover\n"
        "metadata.Distribution.discover = classmethod(\n"
        "    lambda cls, **k: (d for d in named(**k) if d.metadata['Name'] != 'solo-dimreg')\n"
        ")\n"
        "import solo_dimreg\n"
        "from solo_dimreg.config.folders import shipped_folders\n"
        "from solo_dimreg.plugins import registered\n"
        "kinds = [sorted(registered(kind)) for kind in ('regularizers', 'metrics')]\n"
        "print(json.dumps([solo_dimreg.__file__, solo_dimreg.__version__, *kinds, shipped_folders()]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    file, version, regularizers, metrics, folders = json.loads(done.stdout)
    assert Path(file).parent == tmp_path / "solo_dimreg" and version == package_version
    assert {"ldreg", "decorrelation", "effective_rank", "visreg"} <= set(regularizers)
    assert {"lid", "rankme"} <= set(metrics) and "digits" in folders


@pytest.mark.slow
def test_an_installed_plugin_trains_by_name(tmp_path: Path, few_digits: Path) -> None:
    install(tmp_path, "variance-hinge", DECOV)
    listed = solo_dimreg(tmp_path, "methods", "--json")
    rows = {row["name"]: row for row in json.loads(listed.stdout)}
    assert rows["variance_hinge"] == {
        "name": "variance_hinge",
        "kind": "regularizer",
        "plugin": "variance_hinge",
        "distribution": "variance-hinge",
        "description": "VarianceHinge",  # and not that of torch's class above it
        "weight": "required",
    }
    run = solo_dimreg(
        tmp_path,
        *("pretrain", "--config-path", "digits", "--config-name", "simclr", "max_epochs=1"),
        *("optimizer.batch_size=32", "data.num_workers=0", "checkpoint.dir=out"),
        *(f"data.{split}_path={few_digits / split}" for split in ("train", "val")),
        *("+regularizers.variance_hinge.weight=0.1", "+regularizers.variance_hinge.target=2.0"),
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    (metrics,) = tmp_path.glob("out/simclr/*/metrics.csv")
    assert "train_variance_hinge_epoch" in metrics.read_text().splitlines()[0]


def test_a_plugin_that_does_not_import_is_named_with_its_package(tmp_path: Path) -> None:
    install(tmp_path, "broken-plugin", "import does_not_exist_anywhere\n")
    run = solo_dimreg(tmp_path, "methods")
    assert run.returncode == 2
    assert len(run.stderr.strip().splitlines()) == 1
    assert "broken-plugin" in run.stderr and "does_not_exist_anywhere" in run.stderr


def test_two_plugins_with_one_name_are_both_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "first-package", DECOV)
    install(tmp_path, "second-package", DECOV)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError) as error:
        registered("regularizers", load_plugins(entries(tmp_path)))
    assert all(name in str(error.value) for name in ("first-package", "second-package", "'variance_hinge'"))


def test_two_entry_points_with_one_name_are_both_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "third-package", DECOV, plugin="same")
    install(tmp_path, "fourth-package", DECOV, plugin="same")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match=r"third-package.*fourth-package|fourth-package.*third-package"):
        load_plugins(entries(tmp_path))


def test_a_hook_that_does_not_exist_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "from solo_dimreg.plugins import hookimpl\n@hookimpl\ndef register_regularisers():\n    return {}\n"
    )
    install(tmp_path, "misspelt-plugin", source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match=r"misspelt-plugin.*register_regularisers"):
        load_plugins(entries(tmp_path))


def test_a_method_may_not_take_solo_learns_name(tmp_path: Path) -> None:
    source = (
        "from solo_dimreg.plugins import hookimpl\n@hookimpl\n"
        "def register_methods(host):\n    return {'simclr': host.Method}\n"
    )
    install(tmp_path, "greedy-plugin", source)
    run = solo_dimreg(tmp_path, "methods")
    assert run.returncode == 2
    assert "greedy-plugin" in run.stderr and "'simclr'" in run.stderr
