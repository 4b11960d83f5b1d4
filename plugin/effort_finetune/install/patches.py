"""Puts our blocks into a file's bytes; pure functions, no disk writes.

What goes where is data (``patches/blocks.yaml``). Bytes that are not ours are never rewritten: line endings,
encodings and a missing final newline survive, and ``marked_blocks.strip`` undoes :func:`insert` exactly.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from effort_finetune.host.marked_blocks import CLOSE, OPEN, split_bom, split_lines


@dataclass(frozen=True)
class Patch:
    """One block for one file of a host.

    Attributes:
        file: Path relative to the host's root.
        where: ``top``: after the docstring and the ``from __future__`` lines; ``end``: of the file.
        lines: What stands between the marks.
        lost: What a user has to do without where the block does not fit.
        needs: A name that the file has to define for the block to work, if any.
    """

    file: str
    where: Literal["top", "end"]
    lines: tuple[str, ...]
    lost: str
    needs: str | None = None


class Misfit(Exception):
    """A block cannot stand in a file; the message says why."""


def load_patches(path: Path) -> list[Patch]:
    """Reads the blocks; a mistake in the file is the package's own and raises ``ValueError``."""
    patches = [
        Patch(
            file=item["file"],
            where=item["where"],
            lines=tuple(item["lines"].splitlines()),
            lost=item["lost"],
            needs=item.get("needs"),
        )
        for item in yaml.safe_load(path.read_text(encoding="utf-8"))
    ]
    files = [patch.file for patch in patches]
    if len(set(files)) != len(files) or any(patch.where not in ("top", "end") for patch in patches):
        raise ValueError(f"{path}: files must be unique and 'where' top or end")
    return patches


def insert(content: bytes, patch: Patch) -> bytes:
    """Returns ``content`` with the patch's block in it.

    Args:
        content: The file without any of our blocks.
        patch: What to insert.

    Raises:
        Misfit: If the file does not parse, with the block or without, or lacks what the block needs.
    """
    tree = _parsed(content)
    if patch.needs is not None and patch.needs not in _defined(tree):
        raise Misfit(f"it defines no {patch.needs}")
    mark, body = split_bom(content)
    lines = split_lines(body)
    at = len(lines) if patch.where == "end" else _top(tree, body)
    lines[at:at] = _block(lines, at, patch.lines)
    patched = mark + b"".join(lines)
    _parsed(patched)
    return patched


def _parsed(content: bytes) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in strings that are the host's own
            compile(content, "<host>", "exec", dont_inherit=True)  # ast alone does not look at __future__
            return ast.parse(content)
    except SyntaxError as error:
        raise Misfit(f"it does not parse (line {error.lineno}: {error.msg})") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise Misfit(f"it does not parse ({error})") from error


def _defined(tree: ast.Module) -> set[str]:
    """The names that a module's top level binds, in whatever block of it."""
    names: set[str] = set()
    pending: list[Iterable[ast.stmt]] = [tree.body]
    while pending:
        for node in pending.pop():
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                names.add(node.name)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                names |= {alias.asname or alias.name for alias in node.names}
            elif isinstance(node, ast.Assign):
                names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
            else:
                pending += [getattr(node, part) for part in ("body", "orelse") if hasattr(node, part)]
    return names


def _top(tree: ast.Module, body: bytes) -> int:
    """The number of lines before the first statement that is no docstring and no ``from __future__``."""
    if re.search(rb"\r(?!\n)", body):  # Python counts those as lines
        raise Misfit("it has bare carriage returns")
    above = 0
    for number, node in enumerate(tree.body):
        is_docstring = number == 0 and ast.get_docstring(tree, clean=False) is not None
        if is_docstring or (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
            above = node.end_lineno or node.lineno
            continue
        first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
        if first <= above:
            raise Misfit(f"line {first} holds two statements")
        return first - 1
    return len(split_lines(body))


def _block(lines: list[bytes], at: int, text: Iterable[str]) -> list[bytes]:
    """The block's lines with the file's line ending; the line before it gets one where it has none."""
    ending = b"\r\n" if lines and lines[0].endswith(b"\r\n") else b"\n"
    block = [line.encode() + ending for line in (OPEN.decode(), *text, CLOSE.decode())]
    if at == len(lines) and lines and not lines[-1].endswith(b"\n"):
        lines[-1] += ending
        block[-1] = block[-1][: -len(ending)]
    return block
