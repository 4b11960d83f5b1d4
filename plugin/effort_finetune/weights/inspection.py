"""What a checkpoint file holds, as one document, without a model to load it into."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from effort_finetune.core.errors import UserError
from effort_finetune.core.files import sha256_file
from effort_finetune.weights import first_look, safe_io
from effort_finetune.weights.adapter import LAYOUT
from effort_finetune.weights.adapter_header import METADATA_KEY, AdapterInfo
from effort_finetune.weights.checkpoint import Checkpoint
from effort_finetune.weights.reader import read_checkpoint


def inspect_file(
    path: Path | str,
    *,
    base: Path | None = None,
    head_width: int | None = None,
    hidden_act: str | None = None,
    allow_pickle: bool = False,
) -> dict[str, Any]:
    """Describes a weights file.

    Args:
        path: A file or model folder. An adapter is described by its header; with ``base``, put on it.
        base: Base of an adapter.
        head_width: Width of an attention head, over what the file states.
        hidden_act: Name of the MLP's activation, likewise.
        allow_pickle: Let the file run code.

    Returns:
        A document for JSON: ``path, sha256, bytes, layout, wrappers, rank, resolution, ...``, ``counts`` of
        keys by class and the lists ``ignored``, ``derived``, ``missing`` and ``unexpected``.

    Raises:
        UserError: If the file cannot be read as a checkpoint.
    """
    file = first_look.locate(path)
    metadata = safe_io.read_metadata(file)
    if METADATA_KEY in metadata and base is None:
        return _adapter(file, metadata)
    checkpoint = read_checkpoint(
        path, base=base, head_width=head_width, hidden_act=hidden_act, allow_pickle=allow_pickle
    )
    surplus = {*checkpoint.derived, *checkpoint.left_over}
    usable = [key for key in checkpoint.tensors if key not in surplus]
    return {
        "path": str(file),
        "sha256": checkpoint.sha256,
        "bytes": file.stat().st_size,
        "layout": checkpoint.layout,
        "wrappers": list(checkpoint.wrappers),
        "rank": checkpoint.rank,
        "decomposed_modules": len(checkpoint.residual_ranks),
        "resolution": checkpoint.resolution,
        "patch_size": checkpoint.patch_size,
        "hidden_size": checkpoint.hidden_size,
        "blocks": checkpoint.layers,
        "heads": _heads(checkpoint),
        "hidden_act": checkpoint.hidden_act,
        "hidden_act_origin": checkpoint.hidden_act_origin,
        "head_outputs": checkpoint.head_outputs,
        "parameters": sum(tensor.numel() for tensor in checkpoint.tensors.values()),
        "stored_in_half_precision": checkpoint.converted,
        "counts": {
            "usable": len(usable),
            "derived": len(checkpoint.derived),
            "ignored": len(checkpoint.ignored),
            "missing": len(checkpoint.missing),
            "unexpected": len(checkpoint.left_over),
        },
        "derived": _by_rule(checkpoint.derived),
        "ignored": _by_rule(checkpoint.ignored),
        "missing": checkpoint.missing,
        "unexpected": checkpoint.left_over,
        "states": checkpoint.statement.to_dict(),
        "notes": [*checkpoint.notes, *checkpoint.tower_notes],
    }


def _adapter(file: Path, metadata: dict[str, str]) -> dict[str, Any]:
    info = AdapterInfo.from_metadata(metadata, f"adapter {file}")
    tensors, _ = safe_io.read_raw(file)
    return {
        "path": str(file),
        "sha256": sha256_file(file),
        "bytes": file.stat().st_size,
        "layout": LAYOUT,
        "rank": info.rank,
        "decomposed_modules": len(info.targets),
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
        "base": dict(info.base),
        "preprocessing": dict(info.preprocessing),
        "vision_config": dict(info.vision_config or {}),
        "settings_digest": info.settings_digest,
        "code_version": info.code_version,
    }


def _heads(checkpoint: Checkpoint) -> int | None:
    try:
        return checkpoint.heads
    except UserError:  # a width that 64 does not divide, and nobody says more: shown as unknown
        return None


def _by_rule(keys: dict[str, str]) -> dict[str, list[str]]:
    """Groups keys by the rule that put them in their class."""
    return {rule: [key for key, r in keys.items() if r == rule] for rule in Counter(keys.values())}
