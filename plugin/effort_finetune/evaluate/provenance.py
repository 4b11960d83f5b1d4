"""Who computed a result: code, libraries, machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch

from effort_finetune.core.version import __version__

#: Distributions whose version can move a number.
LIBRARIES = (
    "torch",
    "transformers",
    "numpy",
    "scikit-learn",
    "opencv-python-headless",
    "albumentations",
    "lmdb",
    "safetensors",
)


def code_version() -> dict[str, Any]:
    """Returns version, commit and dirty flag of this package's own repository.

    The working directory's repository says nothing about the code that ran, and neither does one that
    merely holds the virtual environment: commit and dirty are ``None`` unless git tracks the package's files.
    """
    package = Path(__file__).resolve().parents[1]
    version = {"name": "effort-finetune", "version": __version__}
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return {**version, "commit": None, "dirty": None}
    status = _git(package, "status", "--porcelain", "--untracked-files=no")
    return {
        **version,
        "commit": _git(package, "rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
    }


def library_versions() -> dict[str, str | None]:
    """Returns the versions of Python and of :data:`LIBRARIES`; ``None`` for one that is not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def device_info(device: torch.device, autocast: torch.dtype | None) -> dict[str, Any]:
    """Returns what the forward passes ran on.

    Args:
        device: The model's device.
        autocast: Precision under autocast, ``None`` for float32.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "type": device.type,
        "name": name,
        "precision": "float32" if autocast is None else str(autocast).removeprefix("torch."),
        "cpu_threads": torch.get_num_threads(),
        "platform": platform.platform(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git(folder: Path, *arguments: str) -> str | None:
    """Returns git's answer about a folder, ``None`` when there is no git or it refuses."""
    if shutil.which("git") is None:
        return None
    # GIT_DIR and the like, set while a hook runs, would answer for another repository.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, env=environment, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None
