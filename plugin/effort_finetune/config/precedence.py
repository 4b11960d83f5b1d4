"""Sources of settings laid over each other: other names translated, relative paths made absolute."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effort_finetune.config.aliases import ALIASES, NotConvertible, Unless
from effort_finetune.config.key_table import key_groups, known_keys
from effort_finetune.config.schema import Settings
from effort_finetune.core.errors import UserError

_OPTIMIZERS = ("adam", "adamw", "sgd", "sam")
_NULL_WORDS = frozenset({"null", "none", "~", ""})


@dataclass(frozen=True)
class Layer:
    """One source.

    Attributes:
        source: What errors call it.
        tree: Its keys and values, nested or dotted.
        root: What its relative paths are relative to; ``None`` leaves them as they are.
        is_hosts: Whether it is a host's own file, which may hold what only that host knows.
    """

    source: str
    tree: Mapping[str, Any]
    root: Path | None = None
    is_hosts: bool = False


@dataclass(frozen=True)
class Origin:
    """A value with the layer that it comes from and the name that it has there."""

    value: Any
    layer: Layer
    written: str


def merge(layers: Sequence[Layer]) -> tuple[dict[str, Origin], list[UserError]]:
    """Lays layers over each other, the later ones on top: dotted key -> value and where it is from."""
    errors: list[UserError] = []
    optimizer = _optimizer_type(layers)
    merged: dict[str, Origin] = {}
    for layer in layers:
        for key, (written, value) in _translated(layer, optimizer, errors).items():
            if key == "label_dict" and isinstance(value, Mapping) and key in merged:
                value = {**merged[key].value, **value}
            if isinstance(value, Unless):
                if key in merged and merged[key].value is not None:
                    continue
                value = value.value
            merged[key] = Origin(value, layer, written)
    return merged, errors


def _translated(layer: Layer, optimizer: str, errors: list[UserError]) -> dict[str, tuple[str, Any]]:
    """Returns a layer's names and values by our names; what a conversion says goes before what it is of."""
    known = known_keys()
    plain: dict[str, tuple[str, Any]] = {}
    converted: dict[str, tuple[str, Any]] = {}
    for written, value in _flatten(layer.tree):
        alias = ALIASES.get(written)
        if alias is not None and alias.convert is not None:
            try:
                result = alias.convert(value)
            except NotConvertible as error:
                errors.append(UserError(f"{written} in {layer.source}", got=repr(value), expected=str(error)))
                continue
            converted[alias.key] = (written, result)
            continue
        key = alias.key if alias else _without_optimizer(written, optimizer)
        if key is None:
            continue
        if key in known and known[key].path and isinstance(value, str):
            value = _absolute(key, value, layer.root)
        if key in plain and plain[key][1] != value:
            if layer.is_hosts:  # it is not ours to judge; the key's own name counts
                value = plain[key][1] if plain[key][0] == key else value
            else:
                errors.append(
                    UserError(
                        f"{plain[key][0]} and {written} are two names of one setting and differ in "
                        f"{layer.source}",
                        got=f"{plain[key][1]} and {value}",
                        expected="one value",
                    )
                )
        plain[key] = (written, value)
    return plain | {k: v for k, v in converted.items() if not (isinstance(v[1], Unless) and k in plain)}


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    groups = key_groups() | {f"optimizer.{name}" for name in _OPTIMIZERS}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if name in groups and isinstance(value, Mapping):
            yield from _flatten(value, f"{name}.")
        else:
            yield name, value


def _optimizer_type(layers: Sequence[Layer]) -> str:
    for layer in reversed(layers):
        for key, value in _flatten(layer.tree):
            if key == "optimizer.type" and isinstance(value, str):
                return value
    return Settings().optimizer.type


def _without_optimizer(key: str, optimizer: str) -> str | None:
    """Takes ``adam`` out of ``optimizer.adam.lr``; ``None`` for another optimiser's values."""
    for name in _OPTIMIZERS:
        if key == f"optimizer.{name}" or key.startswith(f"optimizer.{name}."):
            return f"optimizer.{key.rpartition('.')[2]}" if name == optimizer else None
    return key


def _absolute(key: str, value: str, root: Path | None) -> str:
    # save_to stays as written: it may still hold "{train_dataset}", and is relative to the cwd anyway.
    if root is None or key == "save_to" or value.lower() in _NULL_WORDS:
        return value
    path = root / os.path.expanduser(value)
    # A hub id ("openai/clip-...") looks like a relative path; only what is there or says "." is one.
    if key == "clip_path" and not (value.startswith((".", "/", "~")) or path.exists()):
        return value
    return os.path.normpath(path)
