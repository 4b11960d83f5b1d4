"""Other names of settings, as people's files and flags have them: the one table of them.

An entry here is understood in YAML files and, where it only renames, as a flag; it stands in the settings'
table and in the JSON Schema. ``optimizer.<type>.lr`` and the like, upstream's form, is a rule of its own in
:mod:`effort_finetune.config.precedence`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


class NotConvertible(Exception):
    """A written value has no meaning for the setting; the message says what would have."""


@dataclass(frozen=True)
class Unless:
    """A value for a setting that nobody gives another one than null."""

    value: Any


@dataclass(frozen=True)
class Alias:
    """What another name means.

    Attributes:
        key: The setting, dotted.
        found_in: Who writes it so.
        convert: Written value -> the setting's value or :class:`Unless`; ``None`` takes it as it is.
        words: What ``convert`` does.
    """

    key: str
    found_in: str
    convert: Callable[[Any], Any] | None = None
    words: str = ""


_FORKS_PATIENCE = 3  # in its finetune.py, where the file has none


def _patience(enabled: Any) -> Any:
    if not isinstance(enabled, bool):
        raise NotConvertible("true or false")
    return Unless(_FORKS_PATIENCE) if enabled else None


_FORK = "edited forks of the Effort repository"
ALIASES: Mapping[str, Alias] = {
    "lr": Alias("optimizer.lr", "short form"),
    "weight_decay": Alias("optimizer.weight_decay", "short form"),
    "batch_size": Alias("test_batchSize", f"evaluation scripts of {_FORK}"),
    "pretrained_checkpoint": Alias("pretrained_weights", _FORK),
    "raw_data_dir": Alias("train_dataset", f"flags of {_FORK}"),
    "raw_data_root": Alias("train_dataset", _FORK),
    "dataset_root_rgb": Alias("rgb_dir", "the Effort repository, DF40"),
    "early_stopping.metric": Alias("metric_scoring", _FORK),
    "early_stopping.enabled": Alias(
        "early_stopping.patience", _FORK, _patience, "false: patience null; true: patience as written, else 3"
    ),
}


def renames_of(key: str) -> tuple[str, ...]:
    """Returns the other names of a key that are only names."""
    return tuple(name for name, alias in ALIASES.items() if alias.key == key and alias.convert is None)


def key_of_flag(name: str) -> str:
    """Returns the key that a flag's name means, the name itself where it is no other name."""
    alias = ALIASES.get(name)
    return name if alias is None or alias.convert is not None else alias.key
