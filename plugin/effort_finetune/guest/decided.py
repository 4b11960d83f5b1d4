"""What an expression of a host's is, as far as its configuration alone tells."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any


def decided(node: ast.expr, config: Mapping[str, Any]) -> Any:
    """What an expression is, where the configuration alone tells; ``None`` where it does not."""
    try:
        return _computed(node, config)
    except (KeyError, TypeError, AttributeError, LookupError, ValueError):
        return None


def _computed(node: ast.expr, config: Mapping[str, Any]) -> Any:
    match node:
        case ast.Name(id="config") | ast.Attribute(attr="config"):
            return config
        case ast.Subscript(value=value, slice=key):
            return _computed(value, config)[_computed(key, config)]
        case ast.Call(func=ast.Attribute(value=value, attr="get"), args=args):
            return _computed(value, config).get(*(_computed(each, config) for each in args))
        case ast.BoolOp(op=ast.And(), values=values):
            held = [decided(each, config) for each in values]
            return False if False in held else None if None in held else all(held)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _computed(operand, config)
        case ast.Compare(left=left, ops=[ast.In() | ast.NotIn() as sign], comparators=[right]):
            there = _computed(left, config) in _computed(right, config)
            return there is isinstance(sign, ast.In)
        case ast.Compare(left=left, ops=[ast.Eq() | ast.NotEq() as sign], comparators=[right]):
            equal = _computed(left, config) == _computed(right, config)
            return equal is isinstance(sign, ast.Eq)
        case _:
            return ast.literal_eval(node)
