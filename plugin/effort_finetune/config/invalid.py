"""pydantic's findings in our wording: every wrong setting at once, a line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from effort_finetune.config.wording import alternatives, describe, kind_of
from effort_finetune.core.errors import UserError, UserErrors, did_you_mean


def as_user_error(
    error: ValidationError,
    keys: Mapping[str, FieldInfo],
    tree: Mapping[str, Any],
    source_of: Callable[[str], str] = lambda key: "",
    written: Mapping[str, str] = MappingProxyType({}),
) -> UserError:
    """Returns one error, or all in one, saying for each key what it got and what it accepts.

    Args:
        error: What pydantic found.
        keys: Every key that there is, dotted.
        tree: The nested values that were validated.
        source_of: Dotted key -> where its value comes from, e.g. ``" in my.yaml"``.
        written: Dotted key -> the name that the user gave it, by which it is called.
    """
    lines: dict[str, UserError] = {}  # one line for a place, however many alternatives failed there
    for detail in error.errors(include_url=False):
        if detail["type"] == "contradiction":
            found = detail["ctx"]
            name = _as_typed(found["key"], written)
            lines[found["key"]] = UserError(name, got=found["got"], expected=found["expected"])
            continue
        key, rest = _split(detail["loc"], keys)
        place = ".".join(map(str, (key, *rest[:1]))) if _is_mapping(keys.get(key)) else key
        if "*" in key or detail["type"] == "extra_forbidden":
            place = _shown(detail["loc"])
        source = source_of(key.partition(".*.")[0])
        lines.setdefault(place, _line(detail, key, rest, keys, tree, source, written))
    errors = list(lines.values())
    return errors[0] if len(errors) == 1 else UserErrors(errors)


def unknown_key(key: str, source: str, known: Mapping[str, Any]) -> UserError:
    """Returns the error for a key that nothing reads, with the nearest that something does."""
    return UserError(
        f"unknown setting{source}",
        got=repr(key),
        next_step=did_you_mean(key, known) or "`effort-finetune settings` lists every key",
    )


def _split(loc: tuple[int | str, ...], keys: Mapping[str, Any]) -> tuple[str, tuple[int | str, ...]]:
    """Cuts pydantic's path behind the key; what follows are branches of a union, indices, entries."""
    for end in range(len(loc), 0, -1):
        key = ".".join("*" if isinstance(part, int) else part for part in loc[:end])
        if key in keys:
            return key, loc[end:]
    return ".".join(map(str, loc)), ()


def _line(
    detail: ErrorDetails,
    key: str,
    rest: tuple[int | str, ...],
    keys: Mapping[str, FieldInfo],
    tree: Mapping[str, Any],
    source: str,
    written: Mapping[str, str],
) -> UserError:
    if detail["type"] == "extra_forbidden":
        return unknown_key(_shown(detail["loc"]), source, keys)
    if key not in keys:  # a group, e.g. `optimizer: adam`
        return UserError(f"{key}{source}", got=repr(detail["input"]), expected="keys with values")
    kind, brief = kind_of(keys[key]), detail["type"] != "less_than_equal"
    value: Any = tree
    for part in detail["loc"][: key.count(".") + 1]:
        item = isinstance(value, Mapping) or isinstance(part, int)
        value = value[part] if item else getattr(value, str(part))
    if _is_mapping(keys[key]) and isinstance(value, Mapping) and rest:
        kind = get_args(alternatives(kind)[0])[0 if "[key]" in rest else 1]
        got = f"{rest[0]!r}: {value[rest[0]]!r}"
    else:
        got = repr(value)
    shown = _as_typed(_shown(detail["loc"][: key.count(".") + 1]), written)
    return UserError(f"{shown}{source}", got=got, expected=describe(kind, brief=brief))


def _as_typed(key: str, written: Mapping[str, str]) -> str:
    """Returns the name that the user gave, with ours behind it where they differ."""
    name = written.get(key, key)
    return key if name == key else f"{name} ({key})"


def _shown(loc: tuple[int | str, ...]) -> str:
    """Returns a place as a reader counts: ``stages.1.nEpochs`` is of the first stage."""
    return ".".join(str(part + 1) if isinstance(part, int) else part for part in loc)


def _is_mapping(field: FieldInfo | None) -> bool:
    kind = get_args(alternatives(kind_of(field))[0]) if field is not None else ()
    return field is not None and len(kind) == 2 and "Mapping" in str(field.annotation)
