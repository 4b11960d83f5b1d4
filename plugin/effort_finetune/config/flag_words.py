"""Words of a command line as values: read as YAML would read them, but names stay names."""

from __future__ import annotations

from typing import Any

import yaml

from effort_finetune.config.key_table import Key
from effort_finetune.config.wording import alternatives, item_kind


def from_flag(text: str, key: Key) -> Any:
    """Reads one command-line word as YAML would, but leaves text alone where text is wanted.

    A dataset named ``007`` or ``2024-01-01`` is a name, not a number or a date; ``null`` is null
    only where the setting can be null.
    """
    kinds = alternatives(key.kind)
    if text.lower() == "null" and type(None) in kinds:
        return None
    if any(str in (kind, item_kind(kind)) for kind in kinds):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
