"""The package is built in layers: imports run downwards only, and nowhere in a circle."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "solo_dimreg"
# From the bottom up. A module may import those of its own layer and of the layers above it in this list.
LAYERS = (
    ("errors",),
    ("files", "distributed", "quiet"),
    ("functional", "plots"),
    ("nn", "datasets"),
    ("metrics",),
    ("methods",),
    ("plugins",),
    ("monitor", "config", "solo_learn", "hydra_plugin", "training", "diagnosis", "reports"),
    ("studies",),
    ("cli",),
    ("__main__", "_hydra"),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path): path for path in MODULES}


def only_for_types(tree: ast.AST) -> set[ast.AST]:
    blocks = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test)]
    return {inner for block in blocks for statement in block.body for inner in ast.walk(statement)}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """The modules of ours that a module imports, and whether as soon as it is imported itself."""
    tree = ast.parse(path.read_text())
    hidden = only_for_types(tree)
    at_once = {inner for statement in tree.body for inner in walk_without_functions(statement)}
    for node in ast.walk(tree):
        if node in hidden:
            continue
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            wanted = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: a relative import"
            continue
        for name in wanted:
            while name.startswith("solo_dimreg"):
                if name in NAMES:
                    yield name, node in at_once
                    break
                name = name.rpartition(".")[0]


def walk_without_functions(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        for child in ast.iter_child_nodes(node):
            yield from walk_without_functions(child)


def level(name: str) -> int:
    parts = name.split(".")
    return LEVEL[parts[1]] if len(parts) > 1 else len(LAYERS)  # solo_dimreg itself shows what is below it


def test_every_module_has_its_layer() -> None:
    tops = {
        path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()
    }
    assert tops - {"__init__", "__pycache__", "py.typed"} == set(LEVEL)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "solo_dimreg"])
def test_imports_run_downwards(name: str) -> None:
    for imported, _ in imports(NAMES[name]):
        assert level(imported) <= level(name), f"{name} imports {imported}"


def test_imports_run_in_no_circle() -> None:
    graph = {
        name: {imported for imported, at_once in imports(path) if at_once and imported != name}
        for name, path in NAMES.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_functional_and_nn_import_torch_only() -> None:
    for name, path in NAMES.items():
        if name.startswith(("solo_dimreg.functional", "solo_dimreg.nn")):
            tree = ast.parse(path.read_text())
            froms = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
            plain = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
            outside = {m.split(".")[0] for m in (*froms, *plain)}
            assert not outside & {
                "solo",
                "pytorch_lightning",
                "lightning",
                "pluggy",
                "hydra",
                "omegaconf",
                "timm",
            }


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and not any(isinstance(n, ast.ClassDef) for n in node.body):
            documented = ast.get_docstring(node, clean=False) or ""
            length = node.end_lineno - node.lineno + 1 - len(documented.splitlines())
            assert length <= 60, f"{node.name} has {length} lines"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="what is tracked is known in a clone only")
def test_the_top_level_holds_what_it_should() -> None:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    tops = {line.split("/")[0] for line in done.stdout.splitlines()}
    assert tops <= {
        *("pyproject.toml", "README.md", "solo_dimreg", "configs", "tests", "reproduce.sh"),
        *("LICENSE", "requirements", ".ci", ".github", ".gitignore"),
        *("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "docs", "mkdocs.yml"),
    }
