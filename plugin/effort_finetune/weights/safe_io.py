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

# In the order of preference when a folder is given: what transformers and open_clip write.
FOLDER_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
HEAD_FILE = "head.safetensors"  # beside model.safetensors in our `merged` export

_ZIP_MAGIC = b"PK\x03\x04"
_PICKLE_MAGIC = b"\x80"
_BLOCKED = re.compile(r"(?:GLOBAL|class|function)\s+([\w.]+)")


def locate(path: Path | str) -> Path:
    """Returns the weights file meant by ``path``: itself, or the one inside a model folder.

    Raises:
        UserError: If nothing is there, or the folder holds no weights file known by name.
    """
    path = Path(path)
    if path.is_dir():
        for name in FOLDER_FILES:
            if (path / name).is_file():
                return path / name
        if any(path.glob("*.index.json")):
            raise UserError(
                f"weights folder {path}",
                got="weights in several files (an index.json)",
                expected="one file",
                next_step="write them again with save_pretrained(folder, max_shard_size='100GB')",
            )
        if (path / "adapter_config.json").is_file():
            raise UserError(
                f"weights folder {path}",
                got="a PEFT adapter, which is written for PEFT to read",
                expected="a checkpoint, a CLIP folder or an adapter of ours",
                next_step="effort-finetune export --to adapter",
            )
        raise UserError(
            f"weights folder {path}",
            got="no weights file in it",
            expected=f"one of {', '.join(FOLDER_FILES)}",
        )
    if not path.is_file():
        raise UserError(
            f"weights file {path}",
            got="no such file",
            next_step="check the path; a relative path starts at the working directory",
        )
    return path


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
    if _looks_like_safetensors(head):
        return _read_safetensors(path)
    if head.startswith(_ZIP_MAGIC):
        if not zipfile.is_zipfile(path):
            raise _damaged(path, "the archive's directory at the end of the file is missing")
        return _read_torch(path, mmap=True, allow_pickle=allow_pickle), {}
    if head.startswith(_PICKLE_MAGIC):
        return _read_torch(path, mmap=False, allow_pickle=allow_pickle), {}
    raise UserError(
        f"weights file {path}",
        got=_what_it_is(head),
        expected="a torch.save or safetensors file",
        next_step="download the file again or check the path",
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
        if not _looks_like_safetensors(stream.read(64)):
            return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise _damaged(path, str(error)) from error


def _looks_like_safetensors(head: bytes) -> bool:
    return len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000


def _what_it_is(head: bytes) -> str:
    if not head:
        return "an empty file"
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the weights it stands for"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, probably the answer to a failed download"
    return f"a file that starts with {head[:8]!r}"


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
