"""Whether a host's script would start here, told from its files before it is run.

A run of which half is the host's imports what the script imports. What would stop it is said in one line,
with the fix, in place of a traceback of the host's.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from effort_finetune.core.errors import UserError
from effort_finetune.guest.absent_files import check_frame_folders, check_weights
from effort_finetune.guest.host_text import Import, bound_names, parse_file, run_at_import, texts
from effort_finetune.guest.tracker_login import check_login
from effort_finetune.guest.unbound_names import first_unbound
from effort_finetune.host.dataset_file import find_dataset_class
from effort_finetune.host.missing_packages import PIP_NAMES
from effort_finetune.host.registered_names import class_body, registered


class HostSource:
    """The files of a host that its script imports when it starts.

    Args:
        root: The host's root.
        script: ``train.py`` or ``test.py``.
        replaced: A module of the host that the run does not import, because ours stands in its place.
    """

    def __init__(self, root: Path, script: Path, *, replaced: str | None = None) -> None:
        self._root, self._training, self._script = root, root / "training", script
        # A host puts folders of its own on the path as it goes; what is its own is never asked of pip.
        self._own_names = {
            path.stem for path in self._training.rglob("*") if path.is_dir() or path.suffix == ".py"
        }
        self._trees: dict[Path, ast.Module] = {}
        self._replaced = None if replaced is None else self._own_file(replaced)
        self.imports: list[Import] = []
        pending = [script]
        while pending:
            file = pending.pop()
            if file not in self._trees and file != self._replaced:
                self._trees[file] = parse_file(file, root)
                found = list(self._imports_of(file))
                self.imports += found
                for each in found:
                    pending += self._files(each)

    def place(self, file: Path, line: int) -> str:
        """Returns ``training/train.py line 36``."""
        return f"{file.relative_to(self._root)} line {line}"

    def check(self, config: Mapping[str, Any], *, detector: str | None = None) -> None:
        """Finds what would stop the script.

        Args:
            config: What it will read: the detector's YAML with the host's own file on top.
            detector: Name of the host's detector that it will build; ``None`` for ours.

        Raises:
            UserError: The first thing that would, in one line with its fix.
        """
        self._check_packages()
        self._check_names()
        self._check_unbound(config)
        self._check_landmark_files()
        self._check_devices()
        self._check_ranks()
        for file, tree in self._trees.items():
            check_login(tree, config, str(file.relative_to(self._root)))
        self._check_frames(bool(config.get("lmdb")))
        if detector is not None:
            self._check_detector(detector, config)

    def _check_frames(self, lmdb: bool) -> None:
        try:
            module, name = find_dataset_class(self._training)
        except UserError:  # the script makes its datasets in a way of its own
            return
        file = self._training / (module.replace(".", "/") + ".py")
        for node in (self._trees.get(file) or parse_file(file, self._root)).body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                check_frame_folders(node, lmdb=lmdb, place=str(file.relative_to(self._root)))

    def _check_detector(self, name: str, config: Mapping[str, Any]) -> None:
        module = registered(self._training, "DETECTOR").get(name)
        if module is None:  # registered in a way of the host's own, or not at all, which it says itself
            return
        file = self._training / (module.replace(".", "/") + ".py")
        body = class_body(file, "DETECTOR", name)
        if body is not None:
            check_weights(body, config, str(file.relative_to(self._root)))

    def _check_packages(self) -> None:
        seen: set[str] = set()
        for each in self.imports:
            if self._own_file(each.module) is not None or each.module in seen:
                continue
            seen.add(each.module)
            top = each.module.partition(".")[0]
            if top in self._own_names:
                continue
            place = self.place(each.file, each.line)
            if importlib.util.find_spec(top) is None:
                raise UserError(
                    f"the host's script needs the package {top!r}, which is not installed",
                    got=f"an import in {place}",
                    next_step=f"pip install {PIP_NAMES.get(top, top)}",
                )
            try:
                importlib.import_module(each.module)
            except (
                Exception
            ) as error:  # what a package of another time raises at import, it raises in the run
                raise UserError(
                    f"the host's script needs {each.module!r}, which cannot be imported here",
                    got=f"{type(error).__name__}: {error} ({place})",
                    next_step=f"install a version of {PIP_NAMES.get(top, top)} that fits, or "
                    "remove the line if your detector does not use it",
                ) from error

    def _check_names(self) -> None:
        for each in self.imports:
            file = self._own_file(each.module)
            if file is None or file.name == "__init__.py" or file not in self._trees:
                continue
            defined = bound_names(self._trees[file])
            lacking = [] if "*" in defined else [n for n in each.names if n not in (*defined, "*")]
            if lacking:
                where = file.relative_to(self._root)
                raise UserError(
                    f"{self.place(each.file, each.line)} imports {lacking[0]}, which {where} does not define",
                    next_step=f"add it to {where}, or remove it from that line",
                )

    def _check_unbound(self, config: Mapping[str, Any]) -> None:
        """A name that the script uses and that is nowhere; what a star brings of another's is not known."""
        tree = self._trees[self._script]
        known = self._names(self._script)
        name = None if known is None else first_unbound(tree, known, config)
        if name is not None:
            raise UserError(
                f"{self.place(self._script, name.lineno)} uses {name.id}, which nothing in the file binds",
                next_step=f"add {self._import_of(name.id)}",
            )

    def _import_of(self, name: str) -> str:
        """The import that would bind a name, from the one file of the host's that defines it."""
        defines = re.compile(rf"^(class|def) {name}\b", re.MULTILINE)
        files = [f for f in self._training.rglob("*.py") if defines.search(f.read_text("utf-8", "replace"))]
        if len(files) != 1:
            return f"an import of {name}, or its definition"
        module = ".".join(files[0].relative_to(self._training).with_suffix("").parts)
        return f"from {module} import {name}"

    def _names(self, file: Path, seen: tuple[Path, ...] = ()) -> set[str] | None:
        """The names that a file of the host's binds, its ``import *`` included, or more than those."""
        names = bound_names(self._trees[file])
        stars = [each for each in self.imports if each.file == file and "*" in each.names]
        written = [n for n in ast.walk(self._trees[file]) if isinstance(n, ast.alias) and n.name == "*"]
        if len(stars) != len(written):  # one that may not run
            return None
        for each in stars:
            source = self._own_file(each.module)
            if source is None or (not source.is_file() and _is_elsewhere(each.module)):
                return None
            if source.name == "__init__.py":
                names |= {path.stem for path in source.parent.iterdir()}
            if source in seen or not source.is_file():
                continue
            if source not in self._trees:  # ours stands in its place
                return None
            brought = self._names(source, (*seen, file))
            if brought is None:
                return None
            names |= brought
        return names

    def _check_landmark_files(self) -> None:
        for file, tree in self._trees.items():
            named = texts(tree)
            for node in run_at_import(tree):
                for call in (each for each in ast.walk(node) if isinstance(each, ast.Call)):
                    called = getattr(call.func, "attr", getattr(call.func, "id", ""))
                    given = call.args[0] if call.args else None
                    path = named.get(getattr(given, "id", ""), getattr(given, "value", None))
                    if called == "shape_predictor" and isinstance(path, str) and not Path(path).is_file():
                        raise UserError(
                            f"{self.place(file, call.lineno)} opens {path}, which is not there",
                            next_step="put dlib's landmark file there",
                        )

    def _check_devices(self) -> None:
        """A module that raises where it finds no device of those it asks for."""
        for file, tree in self._trees.items():
            for node in tree.body:
                tests: list[str] = []
                last: ast.stmt | None = node
                while isinstance(last, ast.If):
                    tests.append(ast.unparse(last.test))
                    last = last.orelse[0] if last.orelse else None
                asked = tests and all(test.endswith(".is_available()") for test in tests)
                if asked and isinstance(last, ast.Raise) and not any(map(_is_there, tests)):
                    raise UserError(
                        f"{self.place(file, last.lineno)} stops on this machine",
                        got=f"false for {' and '.join(tests)}",
                        next_step="run it where there is such a device, or let our trainer run it "
                        "(trainer: effort_finetune)",
                    )

    def _check_ranks(self) -> None:
        """A logger that asks for its rank at each record needs a process group, and one process has none."""
        file = self._training / "logger.py"
        tree = self._trees.get(file)
        if tree is None or "is_initialized" in file.read_text("utf-8", "replace"):
            return
        # Asked outright, or in a filter that the logger is given.
        askers = {"get_rank"} | {
            node.name for node in tree.body if isinstance(node, ast.ClassDef) and "get_rank" in ast.dump(node)
        }
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            if function.name != "create_logger":
                continue
            for call in (each for each in ast.walk(function) if isinstance(each, ast.Call)):
                if getattr(call.func, "attr", getattr(call.func, "id", "")) in askers:
                    raise UserError(
                        f"{self.place(file, call.lineno)} asks for a rank, which one process does not have",
                        next_step="ask dist.is_initialized() there first",
                    )

    def _imports_of(self, file: Path) -> Iterator[Import]:
        package = file.parent
        for node in run_at_import(self._trees[file]):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(file, node.lineno, alias.name, ())
            elif isinstance(node, ast.ImportFrom):
                names = tuple(alias.name for alias in node.names)
                if not node.level:
                    yield Import(file, node.lineno, node.module or "", names)
                    continue
                base = package
                for _ in range(node.level - 1):
                    base = base.parent
                if base.is_relative_to(self._training):
                    parts = [*base.relative_to(self._training).parts, *(node.module or "").split(".")]
                    yield Import(file, node.lineno, ".".join(part for part in parts if part), names)

    def _own_file(self, module: str) -> Path | None:
        """The host's file of a module's name as its scripts find it: in ``training/``, the root or above."""
        for base in (self._training, self._root, self._root.parent):
            path = base.joinpath(*module.split("."))
            if base == self._training or module.split(".")[0] in (
                "training",
                self._root.name,
                "preprocessing",
            ):
                if path.with_suffix(".py").is_file():
                    return path.with_suffix(".py")
                if path.is_dir():
                    return path / "__init__.py"
        return None

    def _files(self, each: Import) -> Iterator[Path]:
        """The host's files that an import runs: the packages on the way, the module, its submodules named."""
        parts = each.module.split(".")
        for count in range(1, len(parts) + 1):
            file = self._own_file(".".join(parts[:count]))
            if file is not None and file.is_file():
                yield file
        for name in each.names:
            file = self._own_file(f"{each.module}.{name}")
            if file is not None and file.is_file():
                yield file


def _is_there(test: str) -> bool:
    """Whether a test of torch's for a device holds here; of one that is not torch's nothing is said."""
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    return {"torch.cuda": cuda, "torch.backends.mps": mps}.get(test.removesuffix(".is_available()"), True)


def _is_elsewhere(module: str) -> bool:
    """Whether a package of this name is installed; it comes before a folder without ``__init__.py``."""
    spec = importlib.util.find_spec(module.partition(".")[0])
    return spec is not None and spec.origin is not None
