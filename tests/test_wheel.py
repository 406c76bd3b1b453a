import json
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from email import message_from_string
from pathlib import Path

import pytest

from solo_dimreg import __version__

ROOT = Path(__file__).parents[1]

PLUGIN = "hydra_plugins/solo_dimreg.py"
PROBE = """
import json, site, sys
target, root = sys.argv[1:]
sys.path[:] = [path for path in sys.path if not path.startswith(root) or "site-packages" in path]
here = set(sys.path)
site.addsitedir(target)  # reads what an editable install puts there
sys.path.sort(key=lambda path: path in here)
import hydra_plugins.solo_dimreg
import solo_dimreg
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from solo_dimreg.config.folders import config_root
print(json.dumps({
    "package": solo_dimreg.__file__,
    "mounted": hydra_plugins.solo_dimreg.__file__,
    "discovered": [plugin.__module__ for plugin in Plugins.instance().discover(SearchPathPlugin)],
    "configs": str(config_root()),
}))
"""


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (path,) = out.glob("*.whl")
    return path


def probe(target: Path) -> dict:
    """Return what a Python finds with this folder among its packages, and without this working tree."""
    code = run(sys.executable, "-I", "-c", PROBE, target, ROOT, cwd=target)
    return json.loads(code.splitlines()[-1])


def read(wheel: Path, ending: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(ending))
        return archive.read(name).decode()


def test_the_wheel_holds_what_an_installation_needs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    configs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    assert "configs/pretrain/digits/simclr.yaml" in configs
    assert {f"solo_dimreg/{name}" for name in configs} <= names
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "solo_dimreg").rglob("*.py")}
    assert modules - {f"solo_dimreg/_hydra/{PLUGIN}"} <= names
    templates = {path.relative_to(ROOT).as_posix() for path in (ROOT / "solo_dimreg").rglob("*.j2")}
    assert "solo_dimreg/diagnosis/templates/base.html.j2" in templates and templates <= names
    assert {"solo_dimreg/py.typed", PLUGIN} <= names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    # hydra_plugins is a namespace that every Hydra plugin shares
    assert "hydra_plugins/__init__.py" not in names
    assert {name.split("/")[0] for name in names} == {
        "solo_dimreg",
        "hydra_plugins",
        next(name.split("/")[0] for name in names if ".dist-info/" in name),
    }


def test_the_wheel_has_its_entry_points(wheel):
    entries = ConfigParser()
    entries.read_string(read(wheel, "/entry_points.txt"))
    assert entries["console_scripts"]["solo-dimreg"] == "solo_dimreg.cli:main"
    assert "solo_dimreg" not in entries  # the built-in plugins need none
    version = message_from_string(read(wheel, "/METADATA"))["Version"]
    assert version == __version__


def test_no_resolver_is_asked_for_solo_learn(wheel):
    metadata = message_from_string(read(wheel, "/METADATA"))
    requirements = metadata.get_all("Requires-Dist")
    assert any(requirement.startswith("hydra-core") for requirement in requirements)
    assert not any(requirement.startswith(("solo-learn", "solo_learn")) for requirement in requirements)


def test_an_installed_wheel_finds_its_configs_and_its_hydra_plugin(wheel, tmp_path):
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", target]
    run(*pip, wheel, cwd=tmp_path)
    found = probe(target)
    assert found["package"] == str(target / "solo_dimreg" / "__init__.py")
    assert found["mounted"] == str(target / PLUGIN)
    assert "hydra_plugins.solo_dimreg" in found["discovered"]
    assert found["configs"] == str(target / "solo_dimreg" / "configs")
    assert (target / "solo_dimreg" / "configs" / "pretrain" / "digits" / "simclr.yaml").is_file()


def test_an_editable_install_finds_those_of_the_working_tree(tmp_path):
    build = "import sys; from hatchling.build import build_editable; print(build_editable(sys.argv[1]))"
    name = run(sys.executable, "-c", build, tmp_path, cwd=ROOT).splitlines()[-1]
    with zipfile.ZipFile(tmp_path / name) as archive:
        archive.extractall(tmp_path / "site")
    found = probe(tmp_path / "site")
    assert found["package"] == str(ROOT / "solo_dimreg" / "__init__.py")
    assert found["mounted"] == str(ROOT / "solo_dimreg" / "_hydra" / PLUGIN)
    assert "hydra_plugins.solo_dimreg" in found["discovered"]
    assert found["configs"] == str(ROOT / "configs")
