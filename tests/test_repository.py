"""Compare the top level of the repository with the files that belong there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="what is tracked is known in a clone only")
def test_the_top_level_holds_what_it_should() -> None:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    tops = {line.split("/")[0] for line in done.stdout.splitlines()}
    assert tops <= {
        *("pyproject.toml", "README.md", "solo_dimreg", "configs", "tests", "reproduce.sh"),
        *("LICENSE", "requirements", ".ci", ".github", ".gitignore"),
        *("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "docs", "mkdocs.yml"),
    }
