"""What a setting accepts, in words: one description for errors, ``--help`` and docs/settings.md."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from effort_finetune.config.kinds import Says

_NAMES = {type(None): "null", str: "text", bool: "true or false", int: "whole number", float: "number"}
#: Bounds wide enough to be nobody's concern; they are enforced, and an error names them.
_WIDE = 10**5


def kind_of(field: FieldInfo) -> Any:
    """Returns a field's annotation with the metadata that pydantic took off its outside put back."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def describe(kind: Any, *, brief: bool = False) -> str:
    """Returns what a kind accepts.

    Args:
        kind: An annotation.
        brief: Leave bounds out that are only there to catch slips.
    """
    base, notes = _apart(kind)
    for note in notes:
        if isinstance(note, Says):
            return note.text
    origin, members = get_origin(base), get_args(base)
    if origin in (Union, types.UnionType):
        return _either([word for member in members for word in _choices(member, brief)])
    if origin is Literal:
        return _either(list(map(str, members)))
    if origin is tuple:
        item = describe(members[0], brief=brief)
        return f"list of {item}" if members[-1] is Ellipsis else f"{len(members)} x {item}"
    if origin is not None and issubclass(origin, Mapping):
        return f"mapping of {describe(members[0], brief=brief)} to {describe(members[1], brief=brief)}"
    return f"{_NAMES[base]}{_bounds(notes, brief)}"


def alternatives(kind: Any) -> tuple[Any, ...]:
    """Returns a union's members without their annotations, or the one kind that it is."""
    base, _ = _apart(kind)
    if get_origin(base) in (Union, types.UnionType):
        return tuple(_apart(member)[0] for member in get_args(base))
    return (base,)


def item_kind(kind: Any) -> Any:
    """Returns the plain type of a list's first item, ``None`` for what is no list."""
    return _apart(get_args(kind)[0])[0] if get_origin(kind) is tuple else None


def takes_list(kind: Any) -> bool:
    """Tells whether a kind is, or can be, a list."""
    return any(get_origin(one) is tuple for one in alternatives(kind))


def in_yaml(value: Any) -> str:
    """Returns a value as YAML writes it, on one line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(in_yaml, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _choices(kind: Any, brief: bool) -> list[str]:
    base, _ = _apart(kind)
    return list(map(str, get_args(base))) if get_origin(base) is Literal else [describe(kind, brief=brief)]


def _either(choices: list[str]) -> str:
    *others, last = choices
    return f"{', '.join(others)} or {last}" if others else last


def _apart(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    if get_origin(kind) is Annotated:
        base, *notes = get_args(kind)
        return base, tuple(notes)
    return kind, ()


def _bounds(notes: tuple[Any, ...], brief: bool) -> str:
    low: str | None = None
    high: Any = None
    for note in notes:
        if isinstance(note, Ge):
            low = f">= {_figure(note.ge)}"
        elif isinstance(note, Gt):
            low = f"> {_figure(note.gt)}"
        elif isinstance(note, Lt):
            return f"{'' if low is None else f' {low} and'} < {_figure(note.lt)}"
        elif isinstance(note, Le) and not (brief and float(str(note.le)) >= _WIDE):
            high = _figure(note.le)
    if low is None or (brief and low.startswith(">= -1")):
        return "" if high is None else f" <= {high}"
    if high is None:
        return f" {low}"
    return f" from {low[3:]} to {high}" if low.startswith(">=") else f" {low} and <= {high}"


def _figure(bound: Any) -> str:
    return f"{bound:g}" if isinstance(bound, float) else str(bound)
