"""Finds the files that travel with the package but are not code: patches, overlay, settings, host.

In a checkout they lie beside ``plugin/``; a wheel carries copies under ``effort_finetune/bundled/``
(``setup.py`` puts them there). Both have the same layout, so the rest of the package asks here and
never for ``__file__``.
"""

from __future__ import annotations

from pathlib import Path

from effort_finetune.core.errors import UserError

_PACKAGE = Path(__file__).resolve().parent.parent

#: What a host gets, by its path below the host's root. The sources are the embedded host's own files.
OVERLAY = (
    "training/finetune.py",
    "training/evaluate_finetune.py",
    "training/detectors/effort_finetune_detector.py",
    "training/config/detector/effort_finetune.yaml",
)


def root() -> Path:
    """Returns the folder that holds ``patches/``, ``configs/`` and ``DeepfakeBench/``.

    Raises:
        UserError: If neither a checkout nor a wheel's copies are there (a damaged installation).
    """
    checkout = _PACKAGE.parent.parent
    for candidate in (checkout, _PACKAGE / "bundled"):
        if (candidate / "patches").is_dir() and (candidate / "configs").is_dir():
            return candidate
    raise UserError(
        "the package's own data files are missing",
        got=f"no patches/ and configs/ beside {_PACKAGE}",
        next_step="reinstall with: pip install --force-reinstall effort-finetune",
    )


def blocks() -> Path:
    """Returns the file of the blocks that ``install`` puts into a host."""
    return root() / "patches" / "blocks.yaml"


def overlay() -> list[tuple[Path, str]]:
    """Returns (source file, target path relative to a host's root) for every overlay file."""
    base = root() / "DeepfakeBench"
    return [(base / path, path) for path in OVERLAY]


def embedded_host() -> Path | None:
    """Returns the embedded host's root, or ``None`` in a wheel, which carries only the overlay."""
    candidate = root() / "DeepfakeBench"
    return candidate if (candidate / "training" / "dataset").is_dir() else None
