"""Files and folders that a host's own code would open and that are not there, told from its text.

Hosts hold paths of their authors' machines: in the constructor of a detector, before the name of each frame.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from effort_finetune.core.errors import UserError

#: Calls whose first argument is read at once.
_READS_WEIGHTS = frozenset({"from_pretrained", "load"})
#: Calls that make a path of a folder, or open what it names.
_MAKES_PATHS = frozenset({"abspath", "join", "Path", "open", "listdir"})
#: What need not run when what it stands in does.
MAY_NOT_RUN = (
    *(ast.If, ast.IfExp, ast.BoolOp, ast.For, ast.While, ast.Try),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda),
)
_PATH = re.compile(r"(/|\.{1,2}/|~|[A-Za-z]:[\\/]).*[\\/]")


def check_weights(detector: ast.ClassDef, config: Mapping[str, Any], place: str) -> None:
    """Refuses a detector whose constructor reads weights from a path that is not there.

    A name on a hub is no path; whether it can be had is for the hub to say.

    Args:
        detector: Its class.
        config: Its YAML.
        place: Name of its file, for the message.

    Raises:
        UserError: Such a line.
    """
    for method in _reached(detector, "__init__"):
        texts = _texts(method.body)
        for call in _calls(method.body):
            path = _text(call.args[0], texts, config) if call.args else None
            if _name(call) in _READS_WEIGHTS and path is not None and _is_absent(path):
                keys = [key for key, value in config.items() if value == path]
                raise UserError(
                    f"{place} line {call.lineno} reads {path}, which is not there",
                    next_step="put it there, or name yours in "
                    + (f"the detector's YAML ({keys[0]})" if keys else "that line"),
                )


def check_frame_folders(dataset: ast.ClassDef, *, lmdb: bool, place: str) -> None:
    """Refuses a dataset class that puts a folder which is not there before the name of each frame.

    Args:
        dataset: The class that reads frames.
        lmdb: Whether they come from an LMDB, which knows no folders.
        place: Name of its file, for the message.

    Raises:
        UserError: Such a line.
    """
    for method in _reached(dataset, "__init__", "__getitem__"):
        for call in _calls(method.body):
            path = _text(call.args[0], {}, {}) if call.args else None
            if _name(call) in _MAKES_PATHS and path is not None and path.startswith("/") and _is_absent(path):
                raise UserError(
                    f"{place} line {call.lineno} looks for frames in {path}, which is not there",
                    next_step="drop that folder: with lmdb: true frames go by the names of the index"
                    if lmdb
                    else "name your own folder in that line",
                )


def _is_absent(path: str) -> bool:
    return bool(_PATH.match(path)) and not Path(path).expanduser().exists()


def _reached(body: ast.ClassDef, *starts: str) -> Iterator[ast.FunctionDef]:
    """These methods and those that they call, by ``self.name(...)``, whatever happens."""
    methods = {node.name: node for node in body.body if isinstance(node, ast.FunctionDef)}
    pending, seen = list(starts), set()
    while pending:
        name = pending.pop(0)
        if name in methods and name not in seen:
            seen.add(name)
            yield methods[name]
            pending += [_name(call) for call in _calls(methods[name].body)]


def _calls(nodes: Iterable[ast.AST]) -> Iterator[ast.Call]:
    """The calls that run whenever the statements do, in order; not what a test or a ``try`` guards."""
    for node in nodes:
        if not isinstance(node, MAY_NOT_RUN):
            if isinstance(node, ast.Call):
                yield node
            yield from _calls(ast.iter_child_nodes(node))


def _name(call: ast.Call) -> str:
    return str(getattr(call.func, "attr", getattr(call.func, "id", "")))


def _texts(body: list[ast.stmt]) -> dict[str, ast.expr]:
    """What statements bind to names and attributes, by their text: ``clip_path`` and ``self.clip_path``."""
    return {
        ast.unparse(target): node.value
        for node in body
        if isinstance(node, ast.Assign)
        for target in node.targets
    }


def _text(node: ast.expr, bound: Mapping[str, ast.expr], config: Mapping[str, Any]) -> str | None:
    """The text that an expression is, as far as the file and the YAML tell."""
    node = bound.get(ast.unparse(node), node)
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    asked = re.fullmatch(r"(?:self\.)?config(?:\[|\.get\()'(\w+)'(?:, '([^']*)')?[\])]", ast.unparse(node))
    if asked is None:
        return None
    value = config.get(asked[1], asked[2])
    return value if isinstance(value, str) else None
