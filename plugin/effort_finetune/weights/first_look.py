"""What can be said of a weights file without torch: whether it is there and is one."""

from __future__ import annotations

import zipfile
from pathlib import Path

from effort_finetune.core.errors import UserError

# In the order of preference when a folder is given: what transformers and open_clip write.
FOLDER_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)

ZIP_MAGIC = b"PK\x03\x04"
PICKLE_MAGIC = b"\x80"
_SUFFIXES = frozenset({".pth", ".pt", ".bin", ".ckpt", ".safetensors"})


def look_at(path: Path | str, *, onnx: bool = False) -> None:
    """Refuses at once what reading would refuse after torch's import.

    Args:
        path: File or folder.
        onnx: Whether an ``.onnx`` file will do; its bytes tell nothing at the start.

    Raises:
        UserError: If nothing is there, a folder holds no weights, or a file begins like no weights file, or
            lacks its end.
    """
    path = Path(path).expanduser()
    if path.is_dir() and any(child.suffix in _SUFFIXES for child in path.iterdir()):
        return  # a run folder or a model folder; which file is meant is the reader's to say
    path = locate(path)
    with path.open("rb") as stream:
        head = stream.read(64)
    if onnx and path.suffix == ".onnx" and head:
        return
    if not (looks_like_safetensors(head) or head.startswith((ZIP_MAGIC, PICKLE_MAGIC))):
        raise no_weights(path, head)
    if head.startswith(ZIP_MAGIC):
        refuse_cut_off(path)


def refuse_cut_off(path: Path) -> None:
    """Refuses an archive whose end is missing, as a download that broke off leaves it.

    Raises:
        UserError: It is one.
    """
    try:
        whole = zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # one that claims to span several disks
        whole = False
    if not whole:
        raise damaged(path, "the archive's directory at the end of the file is missing")


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


def looks_like_safetensors(head: bytes) -> bool:
    """Tells whether a file that begins so is a safetensors file."""
    return len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000


def _what_it_is(head: bytes) -> str:
    if not head:
        return "an empty file"
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the weights it stands for"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, probably the answer to a failed download"
    return f"a file that starts with {head[:8]!r}"


def damaged(path: Path, reason: str) -> UserError:
    """Returns the refusal of a file that begins like one of weights and cannot be read."""
    return UserError(
        f"weights file {path}",
        got=f"a truncated or damaged file ({path.stat().st_size} bytes; {reason})",
        next_step="download or copy it again",
    )


def no_weights(path: Path, head: bytes) -> UserError:
    """Returns the refusal of a file that begins like no weights file."""
    return UserError(
        f"weights file {path}",
        got=_what_it_is(head),
        expected="a torch.save or safetensors file",
        next_step="download the file again or check the path",
    )
