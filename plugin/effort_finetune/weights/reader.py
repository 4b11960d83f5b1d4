"""Reads a checkpoint of any known layout and loads it strictly: the room's front door."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from threading import Thread

import torch
from torch import Tensor

from effort_finetune.errors import UserError
from effort_finetune.files import sha256_file
from effort_finetune.weights import fork, layouts, safe_io, wrappers
from effort_finetune.weights.checkpoint import Checkpoint
from effort_finetune.weights.loading import LoadReport, load_into

__all__ = ["Checkpoint", "LoadReport", "load_into", "read_checkpoint"]


def read_checkpoint(path: Path | str, *, allow_pickle: bool = False, head_width: int = 64) -> Checkpoint:
    """Reads a checkpoint and brings it under canonical keys; loads nothing yet.

    Args:
        path: A weights file, or a model folder (``config.json`` beside ``model.safetensors``).
        allow_pickle: Let the file run code on loading (``--allow_pickle``).
        head_width: Width of an attention head, which no shape tells.

    Returns:
        Tensors under canonical keys and what became of every key of the file. Nothing is refused here for a
        missing or unexpected key: :func:`load_into` does that against the model, with the lists.

    Raises:
        UserError: If the file is missing, damaged, unsafe, no checkpoint, or of no known layout.
    """
    file = safe_io.locate(path)
    content, metadata = safe_io.read_raw(file, allow_pickle=allow_pickle)
    what = f"checkpoint {file}"
    flat = wrappers.unwrap(content, what)
    if Path(path).is_dir():
        flat.tensors.update(_head_beside(file))
    canonical = layouts.canonicalise(flat.tensors, what)
    if canonical.layout == layouts.EFFORT_FORK.name:
        fork.verify(flat.tensors, what)
    tensors, converted = _to_float32(canonical.tensors, what)
    return Checkpoint(
        path=file,
        layout=canonical.layout,
        tensors=tensors,
        hash=_hash_in_background(file),
        wrappers=tuple(flat.wrappers),
        ignored={**flat.ignored, **canonical.ignored},
        derived=canonical.derived,
        unexpected=[*flat.unexpected, *canonical.unexpected],
        converted=converted,
        metadata=metadata,
        head_width=head_width,
    )


def _head_beside(file: Path) -> dict[str, Tensor]:
    head = file.with_name(safe_io.HEAD_FILE)
    return safe_io.read_raw(head)[0] if head.is_file() else {}


def _to_float32(tensors: dict[str, Tensor], what: str) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Brings half precision to float32, which loses nothing, and counts how many."""
    wrong = [key for key, tensor in tensors.items() if not tensor.is_floating_point()]
    if wrong:
        raise UserError(
            what, got=f"{tensors[wrong[0]].dtype} in {wrong[0]}", expected="floating-point weights"
        )
    converted: dict[str, int] = {}
    result = {}
    for key, tensor in tensors.items():
        if tensor.dtype not in (torch.float32, torch.float64):
            name = str(tensor.dtype).removeprefix("torch.")
            converted[name] = converted.get(name, 0) + 1
            tensor = tensor.float()
        result[key] = tensor
    return result, converted


def _hash_in_background(path: Path) -> Future[str]:
    """Hashes a file beside the loading (hashlib lets other threads run); a daemon, so errors exit at once."""
    future: Future[str] = Future()

    def work() -> None:
        try:
            future.set_result(sha256_file(path))
        except OSError as error:
            future.set_exception(error)

    Thread(target=work, daemon=True, name="sha256").start()
    return future
