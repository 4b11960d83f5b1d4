"""The one reader of JSON that people or other programs wrote: no key with two values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from effort_finetune.core.errors import UserError
from effort_finetune.core.files import require_regular
from effort_finetune.core.strict_yaml import MOST_BYTES, parse_yaml

#: The index of the largest public dataset has a quarter of it.
MOST_JSON_BYTES = 1 << 30


class _Twice(ValueError):
    def __init__(self, key: str) -> None:
        super().__init__(f"the key {key!r} twice in one object")
        self.key = key


def read_json(path: Path | str) -> Any:
    """Reads a JSON file.

    Raises:
        OSError: If it cannot be read, is no file, or has more than :data:`MOST_JSON_BYTES`.
        ValueError: If it is no JSON.
        UserError: If an object gives a key two values, of which a plain reader would keep the last.
    """
    path = Path(path)
    require_regular(path, most=MOST_JSON_BYTES)
    return parse_json(path.read_text(encoding="utf-8"), str(path))


def parse_json(text: str, source: str) -> Any:
    """Reads a JSON text.

    Args:
        text: The document.
        source: What errors call it.

    Raises:
        ValueError: If it is no JSON, or nested too deeply.
        UserError: If an object gives a key two values; with both lines where the text is of moderate size.
    """
    try:
        return json.loads(text, object_pairs_hook=_once)
    except _Twice as error:
        if len(text) <= MOST_BYTES:
            parse_yaml(text, source)  # JSON is YAML, whose reader knows lines
        raise UserError(
            f"{source} holds {error.key!r} twice, with two values", expected="each key once in an object"
        ) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        for key, value in pairs:
            if result[key] != value:
                raise _Twice(key)
    return result
