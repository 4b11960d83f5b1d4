"""A host's packages without what their ``__init__`` runs: a name that is asked for imports one module."""

from __future__ import annotations

import ast
import importlib
import types
from pathlib import Path
from typing import Any


def lazy_package(name: str, folder: Path) -> types.ModuleType:
    """Makes a package that knows from the text of its ``__init__.py`` where each name comes from.

    ``from networks import BACKBONE`` finds the registry, ``from detectors import XceptionDetector`` imports
    the one module that defines it; ``import networks.xception`` works as in the real package.

    Args:
        name: The package's name, e.g. ``networks``.
        folder: Its folder.
    """
    package = types.ModuleType(name, "A host's package, without running its __init__.")
    package.__path__ = [str(folder)]
    sources = _sources(name, folder / "__init__.py")

    def find(attribute: str) -> Any:
        if attribute not in sources:
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
        module, member = sources[attribute]
        imported = importlib.import_module(module)
        return imported if member is None else getattr(imported, member)

    package.__getattr__ = find  # type: ignore[method-assign]
    return package


def _sources(name: str, init: Path) -> dict[str, tuple[str, str | None]]:
    """What ``__init__.py`` imports from its own and other packages: name to (module, member)."""
    if not init.is_file():
        return {}
    found: dict[str, tuple[str, str | None]] = {}
    try:
        tree = ast.parse(init.read_bytes(), filename=str(init))
    except SyntaxError:
        return {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.level <= 1:
            start = [name] if node.level else []
            for alias in node.names:
                asked = alias.asname or alias.name
                if node.module is None:
                    found[asked] = (f"{name}.{alias.name}", None)
                else:
                    found[asked] = (".".join([*start, node.module]), alias.name)
    return found
