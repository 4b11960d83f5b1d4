"""What a weights file says it was trained on: each dataset's name, hash of its listing, and its division.

The record travels beside the tower's configuration (:mod:`~effort_finetune.weights.vision_config`), in every
``.pth`` and adapter, so that a later evaluation scores what was held out of a folder and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effort_finetune.core.errors import UserError
from effort_finetune.weights import first_look, safe_io
from effort_finetune.weights.adapter_header import METADATA_KEY, AdapterInfo
from effort_finetune.weights.vision_config import TRAINED_ON, of_state

FITS = ("crop", "pad", "squash", "native")


@dataclass(frozen=True)
class Told:
    """What a weights file tells before it is loaded.

    Attributes:
        trained_on: One mapping a dataset; empty where it says nothing.
        fit: How pictures became squares in its training; None where nobody knows.
    """

    trained_on: tuple[Mapping[str, Any], ...] = ()
    fit: str | None = None


def told_by(path: Path | str | None) -> Told:
    """Reads what a weights file says of its data, without its tensors.

    The layout of UniversalFakeDetect says how its pictures were taken: in its own size, from the middle.

    Args:
        path: A checkpoint or adapter, or a folder with one.

    Returns:
        What it says; nothing where it is older or cannot be read (which the loader says better).
    """
    if path is None:
        return Told()
    try:
        file = first_look.locate(path)
        header = safe_io.read_metadata(file)
        if METADATA_KEY in header:
            return _told(AdapterInfo.from_metadata(header, str(path)).vision_config or {})
        with file.open("rb") as stream:
            if header or stream.read(2) != b"PK":
                return Told()  # only a zip archive is mapped and not read
        content, _ = safe_io.read_raw(file)
        told = _told(of_state(content, str(path)).config)
        return Told(fit="native") if not told.trained_on and _is_universal(content) else told
    except (UserError, OSError):
        return Told()


def _told(stated: Mapping[str, Any]) -> Told:
    record = tuple(stated.get(TRAINED_ON, ()))
    return Told(record, next((entry["fit"] for entry in record if entry.get("fit") in FITS), None))


def _is_universal(content: Any) -> bool:
    for _ in range(3):  # {"model": {...}}, {"state_dict": {"model": ...}}
        if not isinstance(content, Mapping):
            return False
        keys = {str(key).removeprefix("module.") for key in content}
        if "fc.weight" in keys and any(key.startswith("model.vision_model.") for key in keys):
            return True
        content = next(
            (content[key] for key in ("model", "state_dict", "model_state_dict") if key in content), None
        )
    return False
