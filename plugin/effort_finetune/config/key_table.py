"""Every key of the settings, dotted as in flags and error messages, with what is known about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

from effort_finetune.config.schema import Settings
from effort_finetune.config.section import leaves
from effort_finetune.config.wording import kind_of


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        kind: Its type with bounds and choices; :func:`effort_finetune.config.wording.describe` says it
            in words.
        default: Its value where no source gives one.
        help: What it is, in one line.
        path: Whether it names a file or folder.
    """

    kind: Any
    default: Any
    help: str
    path: bool


@cache
def known_keys() -> Mapping[str, Key]:
    """Returns every dotted key with its kind, default and meaning, in the schema's order."""
    return MappingProxyType(dict(_keys()))


@cache
def key_groups() -> frozenset[str]:
    """Returns the dotted names under which keys stand: ``optimizer``, ``data_aug`` and so on."""
    return frozenset(key.rpartition(".")[0] for key in known_keys() if "." in key)


def _keys() -> Iterator[tuple[str, Key]]:
    for name, field in leaves(Settings):
        if name != "host_only":
            extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
            default = field.get_default(call_default_factory=True)
            yield name, Key(kind_of(field), default, field.description or "", "path" in extra)
