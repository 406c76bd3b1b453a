"""The command line starts fast: what it imports before a command works is counted, never timed."""

import json
import subprocess
import sys

import pytest

# Runs the command line of its arguments; prints its status, and which of the slow packages it imported.
START = """
import json, sys
from solo_dimreg.cli import main

try:
    main()
except SystemExit as end:
    slow = {"numpy", "PIL", "scipy", "pydantic", "omegaconf", "torch", "torchvision", "timm", "rich", "solo"}
    print("\\n" + json.dumps([end.code, sorted(slow & sys.modules.keys())]))
"""


@pytest.mark.parametrize(
    ("line", "status"),
    [
        *((line, 0) for line in ("--help", "--version", "diagnose --help", "doctor --help")),
        *((line, 2) for line in ("pretrian", "bench --repeats 0", "knn . --k some", "doctor --librayr")),
        *((line, 2) for line in ("pretrain -cp nowhere -cn simclr", "linear nowhere", "knn nowhere.ckpt")),
        *((line, 2) for line in ("diagnose nowhere.npy", "diagnose pixels --images nowhere")),
        *((line, 2) for line in ("diagnose .", "diagnose nowhere", "diagnose pixels resnet18")),
        *((line, 2) for line in ("pretrain -cp digits -cn nosuch", "benchmark nosuch", "report nosuch")),
        *((line, 2) for line in ("compare nosuch", "compare nosuch --data digits", "compare nosuch.yaml")),
        ("compare digits/byol max_epochs=3", 2),
        ("compare simclr --data ./nosuch", 2),
        *((line, 2) for line in ("compare digits/simclr digits/nosuch", "init nosuch", "claims nosuch")),
        *((line, 2) for line in ("claims --data nosuch", "claims --seeds 1", "claims --list nosuch")),
        *((line, 2) for line in ("bench --launches --peers", "bench --launches --repeats 3")),
        *((line, 2) for line in ("bench --launches --no-steps", "bench --peers --steps")),
        *((f"{line} --out {__file__}/sub", 2) for line in ("toy", "toy caught", "sprites")),
        *((line, 2) for line in ("claims --quick ldreg-lid-byol", "run nowhere.py", "data digts")),
    ],
)
def test_help_and_refused_arguments_import_no_torch(line: str, status: int, tmp_path) -> None:
    command = [sys.executable, "-c", START, *line.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [status, []], done.stdout + done.stderr
