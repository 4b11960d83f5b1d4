"""A file of a host's as text: what it imports, what runs when it is imported, the names it binds."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from effort_finetune.core.errors import UserError


@dataclass(frozen=True)
class Import:
    """One import that runs when its file is imported."""

    file: Path
    line: int
    module: str
    names: tuple[str, ...]


def parse_file(file: Path, root: Path) -> ast.Module:
    """Parses one.

    Raises:
        UserError: It is no Python of this version.
    """
    try:
        return ast.parse(file.read_bytes(), filename=str(file))
    except (SyntaxError, ValueError) as error:
        raise UserError(
            f"the host's {file.relative_to(root)} does not parse",
            got=error,
            next_step="fix that line, or remove the import of the file",
        ) from error


def run_at_import(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements that run when a file is imported; what a ``try`` guards may fail and is left out."""
    pending: list[Iterable[ast.stmt]] = [tree.body]
    while pending:
        for node in pending.pop():
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Try)):
                continue
            if isinstance(node, ast.If) and "__main__" in ast.dump(node.test):
                continue
            bodies = [getattr(node, part) for part in ("body", "orelse") if hasattr(node, part)]
            if bodies:
                pending += bodies
            else:
                yield node


def texts(tree: ast.Module) -> dict[str, str]:
    """The names that a module's top level binds to a text."""
    return {
        target.id: node.value.value
        for node in run_at_import(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def bound_names(tree: ast.Module) -> set[str]:
    """Every name that a module binds at its top level; ``*`` where it imports everything of another."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names
