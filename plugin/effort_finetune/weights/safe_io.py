"""Reading a weights file without running what is in it, and writing safetensors.

A pickle is a program. ``torch.load(weights_only=True)`` and safetensors are the only ways in unless the user
asks for ``--allow_pickle``; every refusal says what the file is and what to do about it.
"""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from effort_finetune.core.errors import UserError
from effort_finetune.core.escaping import visible
from effort_finetune.core.files import atomic_write
from effort_finetune.weights.first_look import (
    PICKLE_MAGIC,
    ZIP_MAGIC,
    damaged,
    looks_like_safetensors,
    no_weights,
    refuse_cut_off,
)

HEAD_FILE = "head.safetensors"  # beside model.safetensors in our `merged` export

_UNPICKLER = re.compile(r"WeightsUnpickler error: ([^\n]*)")
#: How many times larger than the file its content may be: fp8 brought to float32 is 4.
EXPANSION = 4
_BLOCKED = re.compile(r"(?:GLOBAL|class|function)\s+([\w.]+)")


def read_raw(path: Path, *, allow_pickle: bool = False) -> tuple[Any, dict[str, str]]:
    """Reads a weights file as it is, memory-mapped where its format allows.

    Args:
        path: A file: safetensors, a ``torch.save`` archive (zip or the older pickle stream).
        allow_pickle: Let the file's pickle run arbitrary code (and read TorchScript archives). Off, the file
            can hold tensors and plain containers only.

    Returns:
        The content (for safetensors a flat dict of tensors) and the metadata of a safetensors header.

    Raises:
        UserError: If the file is truncated, needs more than plain tensors, or is no weights file at all.
    """
    with path.open("rb") as stream:
        head = stream.read(64)
    if looks_like_safetensors(head):
        return _read_safetensors(path)
    if head.startswith(ZIP_MAGIC):
        refuse_cut_off(path)
        refuse_expansion(path)
        return _read_torch(path, mmap=True, allow_pickle=allow_pickle), {}
    if head.startswith(PICKLE_MAGIC):
        return _read_torch(path, mmap=False, allow_pickle=allow_pickle), {}
    raise no_weights(path, head)


def refuse_expansion(path: Path) -> None:
    """Refuses an archive whose content is far larger than itself; torch stores its tensors as they are.

    Raises:
        UserError: If it is one, or its directory is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            claimed = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, struct.error, NotImplementedError) as error:
        raise damaged(path, _first_line(error)) from error
    size = path.stat().st_size
    if claimed > EXPANSION * size + (1 << 20):
        raise UserError(
            f"weights file {path}",
            got=f"an archive of {size} bytes that expands to {claimed}",
            expected=f"tensors stored as they are, at most {EXPANSION} times its size",
        )


def refuse_unbacked(tensors: Mapping[str, Tensor], path: Path, *others: Path) -> None:
    """Refuses tensors that claim more than the file holds: strides of 0, or one storage shown many times.

    Args:
        tensors: What was read.
        path: The file it was read from.
        others: Further files that a part of it was read from.

    Raises:
        UserError: If there are any.
    """
    total = 0
    for key, tensor in tensors.items():
        if tensor.layout != torch.strided:
            continue  # refused by its kind
        claimed = tensor.numel() * tensor.element_size()
        if tensor.device.type != "cpu" or claimed > tensor.untyped_storage().nbytes():
            raise UserError(
                f"weights file {path}",
                got=f"{visible(key)} of shape {list(tensor.shape)}, which the file does not hold",
                expected="every value of a tensor in the file",
            )
        total += claimed
    size = sum(part.stat().st_size for part in (path, *others))
    if total > EXPANSION * size + (1 << 20):
        raise UserError(
            f"weights file {path}",
            got=f"tensors of {total} bytes in a file of {size}",
            expected=f"at most {EXPANSION} times its size",
        )


def write_safetensors(path: Path | str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """Writes a safetensors file atomically, every tensor by itself: views and ties become copies."""
    own: dict[str, Tensor] = {}
    storages: set[int] = set()
    for key, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        storage = plain.untyped_storage().data_ptr()
        own[key] = plain.clone() if storage in storages else plain
        storages.add(storage)
    return atomic_write(path, lambda temporary: save_file(own, temporary, metadata=dict(metadata)))


def read_metadata(path: Path) -> dict[str, str]:
    """Returns the metadata of a safetensors file; an empty dictionary for files of other formats.

    Raises:
        UserError: If it is a safetensors file and damaged.
    """
    with path.open("rb") as stream:
        if not looks_like_safetensors(stream.read(64)):
            return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise damaged(path, str(error)) from error


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise damaged(path, str(error)) from error


def _read_torch(path: Path, *, mmap: bool, allow_pickle: bool) -> Any:
    with _readable_errors(path, allow_pickle):
        if mmap and _is_torchscript(path):
            if not allow_pickle:
                raise UserError(
                    f"weights file {path}",
                    got="a TorchScript archive, which holds code besides weights",
                    expected="a file of plain tensors",
                    next_step="pass --allow_pickle if you trust where the file comes from",
                )
            return torch.jit.load(path, map_location="cpu").state_dict()
        return torch.load(path, map_location="cpu", weights_only=not allow_pickle, mmap=mmap)


def _is_torchscript(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


@contextmanager
def _readable_errors(path: Path, allow_pickle: bool) -> Iterator[None]:
    """Turns what torch and pickle raise about a bad file into one line each."""
    try:
        yield
    except pickle.UnpicklingError as error:
        blocked = _BLOCKED.findall(str(error))
        if allow_pickle or not blocked:
            # torch's message begins with the advice to switch its protection off
            own = _UNPICKLER.search(str(error))
            reason = _first_line(error) if allow_pickle else own[1][:160] if own else "no plain tensors"
            raise damaged(path, reason) from error
        raise UserError(
            f"weights file {path}",
            got=f"a pickle that needs {blocked[0]}, so loading it would run code from the file",
            expected="plain tensors and containers",
            next_step="pass --allow_pickle only if you trust where the file comes from",
        ) from error
    except (
        RuntimeError,
        EOFError,
        zipfile.BadZipFile,
        ArithmeticError,
        AssertionError,
        LookupError,
        MemoryError,
        NotImplementedError,
        ValueError,
        OSError,
        struct.error,
    ) as error:
        raise damaged(path, _first_line(error)) from error
    except (AttributeError, ImportError, TypeError) as error:  # a class of the pickle is not importable here
        raise UserError(
            f"weights file {path}", got=f"a pickle that cannot be rebuilt here: {error}"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:160]
