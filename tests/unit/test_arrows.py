"""The rooms' imports point one way: cli -> train -> evaluate -> data -> model, weights -> config -> core."""

from __future__ import annotations

import ast
from pathlib import Path

import effort_finetune

PACKAGE = Path(effort_finetune.__file__).parent
NAME = "effort_finetune"
CORE = {"errors", "files", "progress", "seeding", "resources", "interrupt", "__init__"}
ROOMS = {"__main__": "cli"}
# Room -> what it may import beside itself. `host` is an object handed to the others, never imported by them.
MAY_IMPORT = {
    "core": set(),
    "config": {"core"},
    "weights": {"core", "config", "model"},
    "model": {"core", "config", "weights"},
    "host": {"core", "config", "train", "model"},
    "data": {"core", "config"},
    "evaluate": {"core", "config", "data", "model", "weights"},
    "train": {"core", "config", "data", "model", "weights", "evaluate"},
    "cli": {"core", "config", "data", "model", "weights", "evaluate", "train", "host"},
}


def _room(module: str) -> str:
    first = module.split(".")[1] if "." in module else "__init__"
    return "core" if first in CORE else ROOMS.get(first, first)


def _module(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join([NAME, *(parts[:-1] if parts[-1] == "__init__" else parts)])


class _Imports(ast.NodeVisitor):
    """Collects imported modules of the package: all of them, and those run when the module is imported."""

    def __init__(self) -> None:
        self.all: set[str] = set()
        self.at_import: set[str] = set()
        self._depth = 0

    def _add(self, name: str) -> None:
        if name == NAME or name.startswith(f"{NAME}."):
            self.all.add(name)
            if self._depth == 0:
                self.at_import.add(name)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level == 0, "imports are absolute"
        base = node.module or ""
        for alias in node.names:
            submodule = PACKAGE.joinpath(*base.split(".")[1:], alias.name)
            is_module = submodule.with_suffix(".py").exists() or submodule.is_dir()
            self._add(f"{base}.{alias.name}" if is_module else base)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return  # annotations only: nothing is imported when the program runs
        self.generic_visit(node)


def _imports() -> dict[str, _Imports]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        visitor = _Imports()
        visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
        found[_module(path)] = visitor
    return found


def test_no_import_points_back():
    wrong = []
    for module, imports in _imports().items():
        room = _room(module)
        for imported in sorted(imports.all):
            target = _room(imported)
            if target != room and target not in MAY_IMPORT[room]:
                wrong.append(f"{module} ({room}) imports {imported} ({target})")
    assert not wrong, "\n".join(wrong)


def test_every_room_is_known():
    rooms = {p.name for p in PACKAGE.iterdir() if p.is_dir() and any(p.glob("*.py"))}
    assert rooms <= set(MAY_IMPORT)
    assert len(rooms) >= 8


def test_no_file_imports_itself_in_a_circle():
    modules = _imports()
    graph = {module: imports.at_import & set(modules) for module, imports in modules.items()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module in done:
            return
        for target in sorted(graph[module]):
            visit(target, (*path, module))
        done.add(module)

    for module in graph:
        visit(module, ())
