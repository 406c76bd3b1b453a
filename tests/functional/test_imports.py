"""The core stays light: importing it brings in torch and nothing else."""

import subprocess
import sys

PROGRAM = """
import sys
import torch
before = {name.partition(".")[0] for name in sys.modules}
import solo_dimreg, solo_dimreg.functional, solo_dimreg.distributed
new = {name.partition(".")[0] for name in sys.modules} - before - sys.stdlib_module_names
print(sorted(new))
"""


def test_importing_the_package_imports_torch_only():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['solo_dimreg']"
