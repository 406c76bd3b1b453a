"""The core stays light: the package alone imports nothing, and its modules import torch and nothing else."""

import subprocess
import sys

import solo_dimreg

PROGRAM = """
import sys
import torch
before = {name.partition(".")[0] for name in sys.modules}
import solo_dimreg, solo_dimreg.functional, solo_dimreg.distributed
from solo_dimreg import LDReg
new = {name.partition(".")[0] for name in sys.modules} - before - sys.stdlib_module_names
print(sorted(new))
"""


def test_importing_the_package_imports_torch_only():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['solo_dimreg']"


LAZY = """
import sys
import solo_dimreg

before = set(dir(solo_dimreg))
assert not {"torch", "numpy", "solo_dimreg.nn", "solo_dimreg.functional"} & sys.modules.keys()
assert before >= {*solo_dimreg.__all__, "distributed", "errors", "functional", "nn"}
assert not hasattr(solo_dimreg, "LDRegs") and "torch" not in sys.modules
assert solo_dimreg.functional.effective_rank and solo_dimreg.nn.LDReg is solo_dimreg.LDReg
from solo_dimreg import *

assert globals().keys() >= set(solo_dimreg.__all__)
import pickle

for name in {*solo_dimreg.__all__} - {"__version__"}:
    value = globals()[name]
    assert value is getattr(solo_dimreg, name) and pickle.loads(pickle.dumps(value)) is value
"""


def test_names_of_the_package_are_imported_when_asked_for():
    done = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_name_of_nn_is_a_name_of_the_package():
    assert set(solo_dimreg.nn.__all__) <= set(solo_dimreg.__all__)


# Modules and names of Python that Windows lacks, or macOS.
ELSEWHERE = """
import builtins, importlib, os, pkgutil, signal, sys

ABSENT = {"fcntl", "grp", "posix_ipc", "pty", "pwd", "resource", "termios", "tty"}
original = builtins.__import__


def absent(name, globals=None, locals=None, fromlist=(), level=0):
    asking = (globals or {}).get("__name__", "")
    if name.partition(".")[0] in ABSENT and asking.startswith(("solo_dimreg", "hydra_plugins")):
        raise ModuleNotFoundError(f"No module named {name!r}, which {asking} imports", name=name)
    return original(name, globals, locals, fromlist, level)


import timm, matplotlib.pyplot, scipy.stats, torchmetrics  # what is not ours is as it is

for module, names in {
    os: ("fork", "geteuid", "getuid", "killpg", "sched_getaffinity", "setsid", "uname"),
    signal: ("SIGALRM", "SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2"),
}.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
builtins.__import__ = absent
import solo_dimreg

for name in solo_dimreg.__all__:
    getattr(solo_dimreg, name)
library = ("datasets", "diagnosis", "functional", "monitor", "nn", "plugins", "reports", "studies")
for part in library:
    for each in pkgutil.walk_packages([f"{solo_dimreg.__path__[0]}/{part}"], f"solo_dimreg.{part}."):
        importlib.import_module(each.name)
for name in ("metrics", "files", "plots", "distributed", "errors", "cli"):
    importlib.import_module(f"solo_dimreg.{name}")
from solo_dimreg.studies.workers import default_jobs

print(default_jobs() >= 1, round(float(solo_dimreg.functional.effective_rank(__import__("torch").eye(4)))))
"""


def test_the_library_imports_where_posix_is_missing():
    """Stands in for Windows, which is not at hand: what our own modules ask Python for is not there."""
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "4"]
