"""The rooms' imports point down only (docs/architecture.md), and no two files share a name."""

from __future__ import annotations

import ast
from pathlib import Path

import effort_finetune

PACKAGE = Path(effort_finetune.__file__).parent
NAME = "effort_finetune"
#: From the top of the house to its bottom; a room may import the rooms of every lower line.
LINES = (
    ("cli", "guest", "serve"),
    ("train", "studies", "export", "install"),
    ("predict", "evaluate"),
    ("data", "model"),
    ("host", "weights"),
    ("config", "svd"),
    ("core",),
)
#: The only arrows between two rooms of one line.
SIDEWAYS = {("studies", "train"), ("predict", "evaluate")}
LINE_OF = {room: number for number, line in enumerate(LINES) for room in line}


def _room(module: str) -> str:
    """The room of a module; the package's own two files are entrances, like the command line."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] != "__main__" else "cli"


def _module(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join([NAME, *(parts[:-1] if parts[-1] == "__init__" else parts)])


class _Imports(ast.NodeVisitor):
    """Collects the imported modules of the package: in functions and under TYPE_CHECKING, too."""

    def __init__(self) -> None:
        self.all: set[str] = set()

    def _add(self, name: str) -> None:
        if name == NAME or name.startswith(f"{NAME}."):
            self.all.add(name)

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


def _imports() -> dict[str, _Imports]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        visitor = _Imports()
        visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
        found[_module(path)] = visitor
    return found


def test_arrows_point_down():
    wrong = []
    for module, imports in _imports().items():
        room = _room(module)
        for imported in sorted(imports.all - {NAME}):
            target = _room(imported)
            if target != room and LINE_OF[target] <= LINE_OF[room] and (room, target) not in SIDEWAYS:
                wrong.append(f"{module} ({room}) imports {imported} ({target})")
    assert not wrong, "\n".join(wrong)


def test_every_room_is_known():
    rooms = {p.name for p in PACKAGE.iterdir() if p.is_dir() and any(p.glob("*.py"))}
    assert rooms <= set(LINE_OF)
    assert len(rooms) >= 12


def test_no_file_imports_itself_in_a_circle():
    modules = _imports()
    graph = {module: imports.all & set(modules) for module, imports in modules.items()}
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


def test_no_two_files_share_a_name():
    files = [p.name for p in PACKAGE.rglob("*.py") if p.name not in ("__init__.py", "__main__.py")]
    twice = sorted({name for name in files if files.count(name) > 1})
    assert not twice, twice
