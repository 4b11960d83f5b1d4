"""A name that a host's script uses as it runs and that nothing in it binds, told from its text.

Only what runs for certain counts: tests of the configuration are decided, everything else that may not run is
passed over.
"""

from __future__ import annotations

import ast
import builtins
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from typing import Any

from effort_finetune.guest.absent_files import MAY_NOT_RUN
from effort_finetune.guest.decided import decided

#: What may bind names that no reader of the text sees.
_BINDS_UNSEEN = frozenset(
    {"exec", "eval", "globals", "locals", "vars", "setattr", "builtins", "__builtins__"}
)
_LEAVES = (ast.Return, ast.Raise, ast.Break, ast.Continue)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def first_unbound(tree: ast.Module, known: Set[str], config: Mapping[str, Any]) -> ast.Name | None:
    """Returns the first use of a name that is nowhere, among what runs when the script does.

    Args:
        tree: The script.
        known: What it binds by its statements and imports, in whatever function.
        config: What it reads, by which ``if config['key'] == ...`` is decided.
    """
    nodes = list(ast.walk(tree))
    used = {node.id for node in nodes if isinstance(node, ast.Name)} | set(known)
    if used & _BINDS_UNSEEN:
        return None
    bound = {*known, *dir(builtins), "__file__", "__name__", "__doc__", "__spec__", "__package__"}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    bound |= {
        str(node.name) for node in nodes if isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar))
    }
    set_later = {
        ast.unparse(n.slice) for n in nodes if isinstance(n, ast.Subscript) and isinstance(n.ctx, ast.Store)
    }
    defined = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    times = Counter(node.name for node in defined)
    functions = {node.name: node for node in defined if times[node.name] == 1}
    pending, seen = [tree.body], set[str]()
    while pending:
        for node in _running(pending.pop(), config, set_later):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in bound:
                return node
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id not in seen:
                seen.add(node.func.id)
                called = functions.get(node.func.id)
                pending += [called.body] if called else []
    return None


def _running(body: list[ast.stmt], config: Mapping[str, Any], set_later: Set[str]) -> Iterator[ast.AST]:
    """The expressions of statements that run, up to the first that may leave them."""
    for node in body:
        if isinstance(node, ast.If):
            yield from _evaluated(node.test)
            truth = _truth(node.test, config, set_later)
            if truth is not None:
                yield from _running(node.body if truth else node.orelse, config, set_later)
        elif isinstance(node, (ast.For, ast.With)):
            heads = [node.iter] if isinstance(node, ast.For) else [item.context_expr for item in node.items]
            for head in heads:
                yield from _evaluated(head)
            yield from _running(node.body, config, set_later)
        elif not isinstance(node, MAY_NOT_RUN):
            yield from _evaluated(node)
        if any(isinstance(each, _LEAVES) for each in ast.walk(node) if not isinstance(node, _FUNCTIONS)):
            return


def _evaluated(node: ast.AST) -> Iterator[ast.AST]:
    """A node and those below it that are evaluated whenever it is; annotations may not be."""
    if isinstance(node, ast.AnnAssign):
        yield from _evaluated(node.value) if node.value else ()
    elif not isinstance(node, MAY_NOT_RUN):
        yield node
        for child in ast.iter_child_nodes(node):
            yield from _evaluated(child)


def _truth(test: ast.expr, config: Mapping[str, Any], set_later: Set[str]) -> bool | None:
    """Whether a test holds; ``None`` where it asks for more than the configuration that was read."""
    if "__main__" in ast.dump(test):
        return True
    if any(isinstance(part, ast.Constant) and ast.unparse(part) in set_later for part in ast.walk(test)):
        return None
    value = decided(test, config)
    return None if value is None else bool(value)
