"""Find all the packages that solo-learn lacks at once, from the imports in its code."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

# The modules that we use of either solo-learn; a module that only one of them has is skipped.
ENTRIES = (
    "solo.methods",
    "solo.args.pretrain",
    "solo.args.linear",
    "solo.data.pretrain_dataloader",
    "solo.data.classification_dataloader",
    "solo.utils.pretrain_dataloader",
    "solo.utils.classification_dataloader",
    "solo.utils.checkpointer",
    "solo.utils.auto_resumer",
    "solo.utils.knn",
)


def missing_modules(root: Path) -> list[str]:
    """Return the top-level modules that solo-learn imports and that are not installed; import none of them.

    Imports inside of ``try`` are left out, because solo-learn works without them.

    Args:
        root: The folder of the package ``solo``.
    """
    seen: set[str] = set()
    waiting = list(ENTRIES)
    missing: dict[str, None] = {}
    while waiting:
        name = waiting.pop()
        path = root.parent.joinpath(*name.split("."))
        file = next(
            (each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file()), None
        )
        if name in seen or file is None:
            continue
        seen.add(name)
        for imported in _imports(ast.parse(file.read_text(encoding="utf-8")).body):
            top = imported.partition(".")[0]
            if top == root.name:
                # Importing a module imports the packages above it.
                parts = imported.split(".")
                waiting += [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
            elif importlib.util.find_spec(top) is None:
                missing[top] = None
    return sorted(missing)


def _imports(body: list[ast.stmt]) -> Iterator[str]:
    for statement in body:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            yield from (f"{statement.module}.{alias.name}" for alias in statement.names)
        elif isinstance(statement, ast.If | ast.With):
            yield from _imports(statement.body)
