"""Which module of a host registers which name, read from its text: nothing is imported to find out."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

#: Folders below ``training/`` whose modules fill a registry.
FOLDERS: Mapping[Literal["DETECTOR", "BACKBONE", "LOSSFUNC"], tuple[str, ...]] = {
    "DETECTOR": ("detectors",),
    "BACKBONE": ("networks", "detectors"),
    "LOSSFUNC": ("loss", "detectors"),
}


def registered(training: Path, registry: Literal["DETECTOR", "BACKBONE", "LOSSFUNC"]) -> dict[str, str]:
    """Returns name to module (``detectors.xception_detector``) of everything a registry can hold.

    Args:
        training: The host's ``training/``.
        registry: ``DETECTOR``, ``BACKBONE`` or ``LOSSFUNC``.
    """
    found: dict[str, str] = {}
    for folder in FOLDERS[registry]:
        for file in sorted((training / folder).glob("*.py")):
            for name in _names(file, registry):
                found.setdefault(name, f"{folder}.{file.stem}")
    return found


def class_body(file: Path, registry: str, name: str) -> ast.ClassDef | None:
    """Returns the class that a file registers under a name."""
    for node, own in _classes(file, registry):
        if own == name:
            return node
    return None


def _names(file: Path, registry: str) -> Iterator[str]:
    if b"register_module" in file.read_bytes():
        yield from (name for _, name in _classes(file, registry))


def _classes(file: Path, registry: str) -> Iterator[tuple[ast.ClassDef, str]]:
    try:
        tree = ast.parse(file.read_bytes(), filename=str(file))
    except SyntaxError:
        return  # hosts carry files of theirs that never parse; they register nothing either
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            for decorator in node.decorator_list:
                if re.match(rf"(\w+\.)*{registry}\.register_module\(", ast.unparse(decorator)):
                    assert isinstance(decorator, ast.Call)
                    values = [*decorator.args, *(keyword.value for keyword in decorator.keywords)]
                    given = next((value for value in values if isinstance(value, ast.Constant)), None)
                    yield node, str(given.value) if given is not None and given.value else node.name


class FilledWhenAsked(dict[str, Any]):
    """A registry's ``data`` that imports the module of a name the first time the name is asked for.

    Args:
        known: What is registered already.
        modules: Name to module, of :func:`registered`.
        load: Imports a module, which registers the name.
    """

    def __init__(
        self, known: Mapping[str, Any], modules: Mapping[str, str], load: Callable[[str], object]
    ) -> None:
        super().__init__(known)
        self._modules, self._load = modules, load

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self._modules

    def __missing__(self, name: str) -> Any:
        if name not in self._modules:
            raise KeyError(name)
        self._load(self._modules[name])
        return dict(self)[name]
