"""Every key of the settings, dotted as in flags and error messages, with what is known about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

from effort_finetune.config.data_keys import DataKeys
from effort_finetune.config.model_keys import ModelKeys
from effort_finetune.config.output_keys import OutputKeys
from effort_finetune.config.schema import Settings
from effort_finetune.config.section import leaves, notes, readers
from effort_finetune.config.training_keys import TrainingKeys
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
        read_by: The commands that read it.
        group: The heading that ``--help`` shows it under.
    """

    kind: Any
    default: Any
    help: str
    path: bool
    read_by: tuple[str, ...]
    group: str


_GROUPS = {
    ModelKeys: "model",
    DataKeys: "data",
    TrainingKeys: "training",
    OutputKeys: "evaluation and output",
}


@cache
def known_keys() -> Mapping[str, Key]:
    """Returns every dotted key with its kind, default and meaning, in the schema's order."""
    return MappingProxyType(dict(_keys()))


@cache
def key_groups() -> frozenset[str]:
    """Returns the dotted names under which keys stand: ``optimizer``, ``data_aug`` and so on."""
    return frozenset(key.rpartition(".")[0] for key in known_keys() if "." in key)


def _keys() -> Iterator[tuple[str, Key]]:
    for (name, field), read_by in zip(leaves(Settings), readers(Settings), strict=True):
        if name == "host_only":
            continue
        top = name.partition(".")[0]
        yield (
            name,
            Key(
                kind=kind_of(field),
                default=field.get_default(call_default_factory=True),
                help=field.description or "",
                path=bool(notes(field).get("path")),
                read_by=read_by,
                group=next(group for section, group in _GROUPS.items() if top in section.model_fields),
            ),
        )
