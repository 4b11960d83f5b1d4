"""One function owns precedence: flags > detector YAML > host's train/test_config.yaml > defaults."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from effort_finetune.config.host_only_keys import HOST_ONLY_KEYS
from effort_finetune.config.invalid import as_user_error, unknown_key
from effort_finetune.config.key_table import key_groups, known_keys
from effort_finetune.config.schema import Settings
from effort_finetune.config.section import leaves
from effort_finetune.core.errors import UserError, UserErrors
from effort_finetune.core.strict_yaml import read_yaml

_OPTIMIZERS = ("adam", "adamw", "sgd")
# Written at the top level in the guide's table; the YAML has them under `optimizer`.
_TOP_LEVEL_ALIASES = {"lr": "optimizer.lr", "weight_decay": "optimizer.weight_decay"}
# A host's own files may hold keys of its own (the Effort authors' fork has `dataset_root_rgb`).
_HOST_SETTINGS = "the host's settings"
_NULL_WORDS = frozenset({"null", "none", "~", ""})


def load_yaml(path: Path | str) -> dict[str, Any]:
    """Reads a YAML file whose top level is a mapping.

    Raises:
        UserError: If it is missing, not YAML, not a mapping, or gives a key two values.
    """
    tree = read_yaml(path, next_step="check --detector_config", last_wins=HOST_ONLY_KEYS)
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise UserError(
            f"{path} is not a settings file", got=type(tree).__name__, expected="keys with values"
        )
    return tree


def resolve(
    *,
    flags: Mapping[str, Any],
    yaml_path: Path | str | None,
    host_defaults: Mapping[str, Any],
    host_root: Path | None = None,
) -> Settings:
    """Resolves all sources into one :class:`Settings`, reporting every error at once.

    Args:
        flags: Dotted or plain keys with values, only those that were given.
        yaml_path: The detector's YAML file, or ``None``.
        host_defaults: The host's ``train_config.yaml`` or ``test_config.yaml`` as a mapping.
        host_root: Relative paths in files are relative to it; in flags to the working directory.

    Raises:
        UserError: If something is unknown, of the wrong type, out of bounds or contradictory.
    """
    layers: list[tuple[str, Mapping[str, Any]]] = [(_HOST_SETTINGS, host_defaults)]
    if yaml_path is not None:
        layers.append((str(yaml_path), load_yaml(yaml_path)))
    layers.append(("the command line", flags))
    merged, errors = _merge(layers, host_root)
    return _build(merged, errors, unknown_is_error=True)


def settings_from_config(config: Mapping[str, Any]) -> Settings:
    """Types the one dictionary that a host's ``train.py`` or ``test.py`` hands to a detector or trainer.

    Keys nobody knows are kept in ``host_only``: the dictionary is the host's, made for all its detectors.

    Raises:
        UserError: If a key of ours has a value of the wrong type or out of bounds.
    """
    if isinstance(config, Settings):
        return config
    merged, errors = _merge([("the host's configuration", config)], None)
    return _build(merged, errors, unknown_is_error=False)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    groups = key_groups() | {f"optimizer.{name}" for name in _OPTIMIZERS}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if name in groups and isinstance(value, Mapping):
            yield from _flatten(value, f"{name}.")
        else:
            yield name, value


def _merge(
    layers: list[tuple[str, Mapping[str, Any]]], host_root: Path | None
) -> tuple[dict[str, tuple[str, Any]], list[UserError]]:
    """Lays the layers over each other: dotted key -> (source, value)."""
    errors: list[UserError] = []
    optimizer = _optimizer_type(layers)
    known = known_keys()
    merged: dict[str, tuple[str, Any]] = {}
    for index, (source, tree) in enumerate(layers):
        is_flags = index == len(layers) - 1 and len(layers) > 1
        seen: dict[str, tuple[str, Any]] = {}
        for written, raw in _flatten(tree):
            key, value = _canonical(written, optimizer), raw
            if key is None:
                continue
            if key in known and known[key].path and isinstance(value, str):
                value = _absolute(key, value, Path.cwd() if is_flags else host_root)
            if key in seen and seen[key][1] != value:
                errors.append(
                    UserError(
                        f"{seen[key][0]} and {written} are two names of one setting and differ in {source}",
                        got=f"{seen[key][1]} and {value}",
                        expected="one value",
                    )
                )
            seen[key] = (written, value)
            if key == "label_dict" and isinstance(value, Mapping) and key in merged:
                value = {**merged[key][1], **value}
            merged[key] = (source, value)
    return merged, errors


def _optimizer_type(layers: list[tuple[str, Mapping[str, Any]]]) -> str:
    for _, tree in reversed(layers):
        for key, value in _flatten(tree):
            if key == "optimizer.type" and isinstance(value, str):
                return value
    return Settings().optimizer.type


def _canonical(key: str, optimizer: str) -> str | None:
    """Maps a written key to the schema's; ``None`` for another optimiser's values, which do not apply."""
    if key in _TOP_LEVEL_ALIASES:
        return _TOP_LEVEL_ALIASES[key]
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


def _build(
    merged: Mapping[str, tuple[str, Any]], errors: list[UserError], *, unknown_is_error: bool
) -> Settings:
    known = known_keys()
    tree: dict[str, Any] = {"host_only": {}}
    for key, (source, value) in merged.items():
        if key in known:
            *groups, name = key.split(".")
            node = tree
            for group in groups:
                node = node.setdefault(group, {})
            node[name] = value
        elif key in HOST_ONLY_KEYS or source == _HOST_SETTINGS or not unknown_is_error:
            tree["host_only"][key] = value
        else:
            errors.append(unknown_key(key, f" in {source}", dict.fromkeys([*known, *HOST_ONLY_KEYS])))
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        found = as_user_error(error, dict(leaves(Settings)), tree, lambda key: f" in {merged[key][0]}")
        errors += found.errors if isinstance(found, UserErrors) else [found]
    if errors or settings is None:
        raise errors[0] if len(errors) == 1 else UserErrors(errors)
    return settings
