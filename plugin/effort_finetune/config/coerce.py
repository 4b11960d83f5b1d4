"""Turning what YAML and the command line hand over into the types the schema names."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

import yaml


class Mismatch(Exception):
    """A value does not fit its type; the message says what would, ``entry`` which of a mapping's it is."""

    entry: str | None = None


def coerce(value: Any, annotation: Any) -> Any:
    """Returns ``value`` as ``annotation``, without guessing.

    Accepted beyond the plain type: numbers written as strings (YAML 1.1 reads ``1e-6`` as one),
    whole floats for integers, and a single item for a list.

    Raises:
        Mismatch: If it does not fit.
    """
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return _union(value, get_args(annotation))
    if origin is Literal:
        if value in get_args(annotation) and not isinstance(value, bool):
            return value
        raise Mismatch(" or ".join(map(str, get_args(annotation))))
    if origin is tuple:
        return _tuple(value, get_args(annotation))
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(value, get_args(annotation))
    return _scalar(value, annotation)


def from_flag(text: str, annotation: Any) -> Any:
    """Reads one command-line word as YAML would, but leaves text alone where text is wanted.

    A dataset named ``007`` or ``2024-01-01`` is a name, not a number or a date; ``null`` is null
    only where the setting can be null.
    """
    members = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    if text.lower() == "null" and type(None) in members:
        return None
    if any(m is str or (get_origin(m) is tuple and get_args(m)[0] is str) for m in members):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _union(value: Any, members: tuple[Any, ...]) -> Any:
    if value is None and type(None) in members:
        return None
    expected = []
    for member in members:
        if member is type(None):
            expected.append("null")
            continue
        try:
            return coerce(value, member)
        except Mismatch as mismatch:
            expected.append(str(mismatch))
    raise Mismatch(" or ".join(expected))


def _tuple(value: Any, members: tuple[Any, ...]) -> tuple[Any, ...]:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise Mismatch("a list")
    if len(members) == 2 and members[1] is Ellipsis:
        return tuple(coerce(v, members[0]) for v in value)
    if len(value) != len(members):
        raise Mismatch(f"a list of {len(members)} values")
    return tuple(coerce(v, m) for v, m in zip(value, members, strict=True))


def _mapping(value: Any, members: tuple[Any, ...]) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise Mismatch("a mapping")
    result = {}
    for key, item in value.items():
        try:
            result[coerce(key, members[0])] = coerce(item, members[1])
        except Mismatch as mismatch:
            mismatch.entry = f"{key!r}: {item!r}"
            raise
    return result


def _scalar(value: Any, annotation: Any) -> Any:
    if annotation is Any:
        return value
    if annotation is bool:
        if isinstance(value, bool):
            return value
        raise Mismatch("true or false")
    if annotation is str:
        if isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        raise Mismatch("a text")
    if annotation in (int, float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if number != number or number in (float("inf"), float("-inf")):
            raise Mismatch("a whole number" if annotation is int else "a number")
        if annotation is float:
            return number
        if number.is_integer():
            return int(number)
    raise Mismatch("a whole number" if annotation is int else "a number")
