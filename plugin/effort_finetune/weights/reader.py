"""Reads a checkpoint of any known layout and loads it strictly: the room's front door."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from effort_finetune.core.errors import UserError
from effort_finetune.weights import (
    adapter,
    adapter_header,
    layouts,
    run_state,
    safe_io,
    statement,
    vision_config,
    wrappers,
)
from effort_finetune.weights import effort_fork as fork
from effort_finetune.weights.checkpoint import Checkpoint
from effort_finetune.weights.first_look import FOLDER_FILES, locate
from effort_finetune.weights.hashing import BackgroundHash
from effort_finetune.weights.loading import LoadReport, load_into
from effort_finetune.weights.statement import Statement

__all__ = ["Checkpoint", "LoadReport", "load_into", "read_checkpoint", "read_statement"]


def read_checkpoint(
    path: Path | str,
    *,
    allow_pickle: bool = False,
    head_width: int | None = None,
    hidden_act: str | None = None,
    base: Path | str | None = None,
    find_base: Callable[[str], Path | None] | None = None,
    allow_base_mismatch: bool = False,
    merge_adapters: bool = True,
) -> Checkpoint:
    """Reads a checkpoint and brings it under canonical keys; loads nothing yet.

    Args:
        path: A weights file, a model folder (``config.json`` beside ``model.safetensors``), or the folder of
            a fine-tuning run, finished or not: the weights it has selected so far.
        allow_pickle: Let the file run code on loading (``--allow_pickle``).
        head_width: Width of an attention head, over what the file or its folder states.
        hidden_act: Name of the MLP's activation, likewise.
        base: For an adapter: its base. Left out, it is sought where the adapter says it was, beside the
            adapter, and then by ``find_base``.
        find_base: Called with the base's recorded name (a path or hub id) when nothing is there.
        allow_base_mismatch: Put an adapter on another base than its own; recorded in the result's notes.
        merge_adapters: Merge the LoRA or DoRA of an unfinished run; false leaves them out, for the run
            itself, which puts them back.

    Returns:
        Tensors under canonical keys and what became of every key of the file. Nothing is refused here for a
        missing or unexpected key: :func:`load_into` does that against the model, with the lists.

    Raises:
        UserError: If the file is missing, damaged, unsafe, no checkpoint, or of no known layout; if it is an
            adapter whose base is not found or is another one.
    """
    file = run_state.file_in(Path(path)) or locate(path)
    content, metadata = safe_io.read_raw(file, allow_pickle=allow_pickle)
    what = f"checkpoint {file}"
    parts = [file]
    if run_state.is_state(content):
        selected = Path(path).is_dir()
        parts.append(run_state.frozen_file(content, file.parent))
        content = {
            "model": run_state.whole(content, file.parent, selected=selected, merge_adapters=merge_adapters)
        }
    if adapter_header.METADATA_KEY in metadata:
        tensors, converted = _to_float32(content, what)
        own = Checkpoint(
            path=file,
            layout=adapter.LAYOUT, tensors=tensors, hash=BackgroundHash(file), converted=converted,
            metadata=metadata, given_head_width=head_width, given_hidden_act=hidden_act,
        )  # fmt: skip
        info = adapter_header.AdapterInfo.from_metadata(metadata, what)
        under = read_checkpoint(
            _locate_base(info.base["name"], file, base, find_base), allow_pickle=allow_pickle
        )
        return adapter.apply(own, info, under, allow_base_mismatch=allow_base_mismatch)
    flat = wrappers.unwrap(content, what)
    safe_io.refuse_unbacked(flat.tensors, *parts)
    beside = vision_config.of_file(file, required=Path(path).is_dir())
    if beside:
        flat.tensors.update(_head_beside(file))
    canonical = layouts.canonicalise(flat.tensors, what)
    if canonical.layout == layouts.EFFORT_FORK.name:
        fork.verify(flat.tensors, what)
    tensors, converted = _to_float32(canonical.tensors, what)
    return Checkpoint(
        path=file,
        layout=canonical.layout,
        tensors=tensors,
        hash=BackgroundHash(file),
        wrappers=tuple(flat.wrappers),
        ignored={**flat.ignored, **canonical.ignored},
        derived=canonical.derived,
        unexpected=[*flat.unexpected, *canonical.unexpected],
        converted=converted,
        metadata=metadata,
        stated={**beside, **flat.stated, **canonical.stated},
        statement=flat.statement.over(statement.beside(file) if beside else Statement()),
        given_head_width=head_width,
        given_hidden_act=hidden_act,
    )


def read_statement(path: Path | str, *, allow_pickle: bool = False) -> Statement:
    """Returns how a weights file says its model is to be used, without reading its tensors.

    Args:
        path: A weights file or model folder.
        allow_pickle: Let the file run code on loading (``--allow_pickle``).

    Raises:
        UserError: If the file is missing, damaged or unsafe, or states what no preprocessing can be.
    """
    file = locate(path)
    metadata = safe_io.read_metadata(file)
    if adapter_header.METADATA_KEY in metadata:
        info = adapter_header.AdapterInfo.from_metadata(metadata, f"adapter {file}")
        return statement.checked(info.preprocessing, f"adapter {file}")
    folder = statement.beside(file) if file.name in FOLDER_FILES else Statement()
    if file.suffix == ".safetensors":
        return folder
    content, _ = safe_io.read_raw(file, allow_pickle=allow_pickle)
    return wrappers.unwrap(content, f"checkpoint {file}").statement.over(folder)


def _locate_base(
    name: str, adapter_file: Path, given: Path | str | None, find: Callable[[str], Path | None] | None
) -> Path:
    if given is not None:
        return Path(given)
    for candidate in (Path(name), adapter_file.parent / Path(name).name):
        # An adapter may be called as its base was, which is gone.
        if candidate.exists() and not candidate.samefile(adapter_file):
            return candidate
    found = find(name) if find else None
    if found is None:
        raise UserError(
            f"adapter {adapter_file}",
            got=f"its base {name} is not there",
            expected="the weights it was fine-tuned from",
            next_step="name them with --base",
        )
    return found


def _head_beside(file: Path) -> dict[str, Tensor]:
    head = file.with_name(safe_io.HEAD_FILE)
    return safe_io.read_raw(head)[0] if head.is_file() else {}


def _to_float32(tensors: dict[str, Tensor], what: str) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Brings half precision to float32, which loses nothing, and counts how many."""
    for key, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            kind = tensor.dtype if tensor.layout == torch.strided else tensor.layout
            raise UserError(what, got=f"{kind} in {key}", expected="dense floating-point weights")
    converted: dict[str, int] = {}
    result = {}
    for key, tensor in tensors.items():
        if tensor.dtype not in (torch.float32, torch.float64):
            name = str(tensor.dtype).removeprefix("torch.")
            converted[name] = converted.get(name, 0) + 1
            tensor = tensor.float()
        result[key] = tensor
    return result, converted
