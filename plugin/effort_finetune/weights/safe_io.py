"""Reading a weights file without running what is in it, and writing safetensors.

A pickle is a program. ``torch.load(weights_only=True)`` and safetensors are the only ways in unless the user
asks for ``--allow_pickle``; every refusal says what the file is and what to do about it.
"""

from __future__ import annotations

import pickle
import re
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
from effort_finetune.core.files import atomic_write
from effort_finetune.weights.first_look import (
    PICKLE_MAGIC,
    ZIP_MAGIC,
    looks_like_safetensors,
    no_weights,
)

HEAD_FILE = "head.safetensors"  # beside model.safetensors in our `merged` export

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
        if not zipfile.is_zipfile(path):
            raise _damaged(path, "the archive's directory at the end of the file is missing")
        return _read_torch(path, mmap=True, allow_pickle=allow_pickle), {}
    if head.startswith(PICKLE_MAGIC):
        return _read_torch(path, mmap=False, allow_pickle=allow_pickle), {}
    raise no_weights(path, head)


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
        raise _damaged(path, str(error)) from error


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise _damaged(path, str(error)) from error


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
            raise _damaged(path, _first_line(error)) from error
        raise UserError(
            f"weights file {path}",
            got=f"a pickle that needs {blocked[0]}, so loading it would run code from the file",
            expected="plain tensors and containers",
            next_step="pass --allow_pickle only if you trust where the file comes from",
        ) from error
    except (RuntimeError, EOFError, zipfile.BadZipFile, ValueError, KeyError, OSError) as error:
        raise _damaged(path, _first_line(error)) from error
    except (AttributeError, ImportError, TypeError) as error:  # a class of the pickle is not importable here
        raise UserError(
            f"weights file {path}", got=f"a pickle that cannot be rebuilt here: {error}"
        ) from error


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(
        f"weights file {path}",
        got=f"a truncated or damaged file ({path.stat().st_size} bytes; {reason})",
        next_step="download or copy it again",
    )


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:160]
