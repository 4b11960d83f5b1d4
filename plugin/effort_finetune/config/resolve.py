"""One function owns precedence: flags > settings files > host's train/test_config.yaml > defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from effort_finetune.config.aliases import ALIASES
from effort_finetune.config.host_only_keys import HOST_ONLY_KEYS
from effort_finetune.config.invalid import as_user_error, unknown_key
from effort_finetune.config.key_table import known_keys
from effort_finetune.config.precedence import Layer, Origin, merge
from effort_finetune.config.schema import Settings
from effort_finetune.config.section import places
from effort_finetune.core.errors import UserError, UserErrors
from effort_finetune.core.files import require_regular
from effort_finetune.core.strict_yaml import MOST_BYTES, read_yaml

#: Our detector, by its own name and by upstream's name of the architecture.
OUR_NAMES = ("effort_finetune", "effort")


def load_yaml(path: Path | str) -> dict[str, Any]:
    """Reads a YAML file whose top level is a mapping.

    Raises:
        UserError: If it is missing, not YAML, not a mapping, or gives a key two values.
    """
    tree = read_yaml(path, next_step="check --detector_config", last_wins=_may_repeat(path))
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise UserError(
            f"{path} is not a settings file", got=type(tree).__name__, expected="keys with values"
        )
    if tree.get("model_name", OUR_NAMES[0]) not in OUR_NAMES:
        # Hosts take it from their command line alone, and many of upstream's files say false.
        tree.pop("save_ckpt", None)
    return tree


class _Every(frozenset[str]):
    def __contains__(self, key: object) -> bool:
        return True


def _may_repeat(path: Path | str) -> frozenset[str]:
    """Keys of a file that may stand twice: what a host alone reads, and all in the YAML of a host's detector.

    Upstream's own ``meso4Inception.yaml`` has ``save_ckpt`` twice, and the host takes the last.
    """
    try:
        require_regular(path, most=MOST_BYTES)
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return HOST_ONLY_KEYS  # the reader says why
    named = re.search(r"^model_name:[ ]*[\"']?([\w:.-]+)", text, flags=re.MULTILINE)
    return HOST_ONLY_KEYS if named is None or named[1] in OUR_NAMES else _Every()


def resolve(
    *,
    flags: Mapping[str, Any],
    yaml_path: Path | str | Sequence[Path | str] | None,
    host_defaults: Mapping[str, Any],
    host_root: Path | None = None,
    flags_source: str = "the command line",
    flags_root: Path | None = None,
) -> Settings:
    """Resolves all sources into one :class:`Settings`, reporting every error at once.

    Args:
        flags: Dotted or plain keys with values, only those that were given.
        yaml_path: One settings file or several, of which the later ones win, or ``None``.
        host_defaults: The host's ``train_config.yaml`` or ``test_config.yaml`` as a mapping.
        host_root: Relative paths in files are relative to it.
        flags_source: What errors call the flags.
        flags_root: What relative paths in flags are relative to; the working directory by default.

    Raises:
        UserError: If something is unknown, of the wrong type, out of bounds or contradictory.
    """
    paths = [yaml_path] if isinstance(yaml_path, (str, Path)) else list(yaml_path or ())
    layers = [
        Layer("the host's settings", host_defaults, host_root, is_hosts=True),
        *(Layer(str(path), load_yaml(path), host_root) for path in paths),
        Layer(flags_source, flags, flags_root or Path.cwd()),
    ]
    return _build(*merge(layers), unknown_is_error=True)


def settings_from_config(config: Mapping[str, Any]) -> Settings:
    """Types the one dictionary that a host's ``train.py`` or ``test.py`` hands to a detector or trainer.

    Keys nobody knows are kept in ``host_only``: the dictionary is the host's, made for all its detectors.

    Raises:
        UserError: If a key of ours has a value of the wrong type or out of bounds.
    """
    if isinstance(config, Settings):
        return config
    return _build(*merge([Layer("the host's configuration", config)]), unknown_is_error=False)


def _build(merged: Mapping[str, Origin], errors: list[UserError], *, unknown_is_error: bool) -> Settings:
    known = known_keys()
    tree: dict[str, Any] = {"host_only": {}}
    # The YAML of another detector has keys that only that detector knows.
    chosen = merged.get("model_name")
    another = chosen is not None and chosen.value not in OUR_NAMES
    for key, origin in merged.items():
        if key in known:
            *groups, name = key.split(".")
            node = tree
            for group in groups:
                node = node.setdefault(group, {})
            node[name] = origin.value
        elif key in HOST_ONLY_KEYS or origin.layer.is_hosts or not unknown_is_error or another:
            tree["host_only"][key] = origin.value
        else:
            names = dict.fromkeys([*known, *ALIASES, *HOST_ONLY_KEYS])
            errors.append(unknown_key(key, f" in {origin.layer.source}", names))
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        found = as_user_error(
            error,
            places(Settings),
            tree,
            lambda key: f" in {merged[key].layer.source}",
            {key: origin.written for key, origin in merged.items()},
        )
        errors += found.errors if isinstance(found, UserErrors) else [found]
    if errors or settings is None:
        raise errors[0] if len(errors) == 1 else UserErrors(errors)
    return settings
