"""Whether the program on disk wants more of the configuration than the one that runs can give.

Worker and dispatcher code comes anew with each generation, the master's own modules only with an upgrade, and the
configuration is an object of the master's. New code under an old master would find attributes missing: some at once,
some only when a job is first due.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from fanoutd.config import model


def newer(loaded: ModuleType = model) -> str | None:
    """Why the code on disk must not run with the configuration in force, in one line; None when it may.

    ``loaded`` is compared with its own file as that is now. A file that cannot be read, or understood, says nothing.
    """
    try:
        tree = ast.parse(Path(str(loaded.__file__)).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    missing = next((".".join(name) for name in _names(tree) if not _has(loaded, *name)), None)
    if missing is None:
        return None
    return (
        f"the program on disk is newer than the running master in what only an upgrade replaces ({missing}): "
        "fanoutd upgrade, then fanoutd reload"
    )


def _names(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(class, field or method), the public ones."""
    for kind in tree.body:
        if isinstance(kind, ast.ClassDef):
            for each in kind.body:
                if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                    yield kind.name, each.target.id
                elif isinstance(each, ast.FunctionDef) and not each.name.startswith("_"):
                    yield kind.name, each.name


def _has(loaded: ModuleType, kind: str, attribute: str) -> bool:
    found = getattr(loaded, kind, None)
    return hasattr(found, attribute) or attribute in getattr(found, "__annotations__", {})
