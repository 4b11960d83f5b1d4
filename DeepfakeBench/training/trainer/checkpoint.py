"""Files of a run: its folder, checkpoints, and writing that never leaves half a file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from config.errors import SettingError
from torch import nn

LAST = "ckpt_last.pth"
BEST = "ckpt_best.pth"


def run_dir(config: Mapping[str, Any], time_now: str) -> Path:
    """Return the folder of a run: ``output_dir``, or ``<log_dir>/<model_name>[_<task_target>]_<time>``."""
    if config.get("output_dir"):
        return Path(config["output_dir"])
    parts = [config["model_name"], config.get("task_target"), time_now]
    return Path(config["log_dir"]) / "_".join(part for part in parts if part)


def ensure_writable(folder: Path) -> None:
    """Make a folder, so that a run cannot end without a place for its results.

    Raises:
        SettingError: It cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise SettingError(f"folder {folder} cannot be written: {error.strerror}") from error


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call ``write`` with a temporary path beside ``path``; move the result into place once it is on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save(content: Any, path: Path) -> None:
    """Write tensors and plain values with ``torch.save``, atomically."""
    write_atomically(path, lambda temporary: torch.save(content, temporary))


def read(path: str | Path) -> Any:
    """Read a checkpoint; only tensors and plain values are unpickled.

    Raises:
        SettingError: No such file, or not such a checkpoint.
    """
    file = Path(path)
    if not file.is_file():
        raise SettingError(f"weights file {file} not found")
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch.load reports a damaged or foreign file by whatever exception its reader met.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SettingError(f"{file} is not a checkpoint of tensors: {reason}") from error


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a state dict, plain or from ``ckpt_last.pth``, with or without DDP's ``module.`` prefix, strictly.

    Raises:
        SettingError: The file is no checkpoint, or its names or shapes are not the model's; both are listed.
    """
    content = read(path)
    state = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise SettingError(f"{path} holds no state dict")
    state = {name.removeprefix("module."): value for name, value in state.items()}
    own = model.state_dict()
    problems = {
        "missing": sorted(own.keys() - state.keys()),
        "unexpected": sorted(state.keys() - own.keys()),
        "of another shape": sorted(n for n in own.keys() & state.keys() if own[n].shape != state[n].shape),
    }
    if any(problems.values()):
        found = [f"{len(keys)} {kind}: {', '.join(keys[:5])}" for kind, keys in problems.items() if keys]
        raise SettingError(f"{path} does not fit {type(model).__name__}; {'; '.join(found)}")
    model.load_state_dict(state)
