"""Keeps the triplets of decomposed weights on disk, by content, so that a second start does no SVD.

One small safetensors file per weight (8 KB for a 1024 x 1024 one at k = 1) in
``$XDG_CACHE_HOME/effort-finetune/svd`` (``~/.cache/...``). Files are written atomically, so several
processes may share the folder. What is read back is checked as singular triplets of the weight at
hand; a file that fails is computed anew and replaced.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from effort_finetune.core.files import atomic_write, cache_folder
from effort_finetune.svd import decompose as svd

logger = logging.getLogger(__name__)

# Part of the key: raised when the decomposition changes what it returns.
_VERSION = 1
_TOLERANCE = 1e-11


def cache_dir() -> Path:
    """Returns the folder of cached triplets; it may not exist yet."""
    return cache_folder("svd")


def content_key(weight: Tensor, rank: int) -> str:
    """Returns a SHA-256 of the weight's bytes, dtype, shape and the rank."""
    digest = hashlib.sha256(f"{_VERSION} {weight.dtype} {tuple(weight.shape)} {rank} ".encode())
    digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def cached_split(weight: Tensor, rank: int) -> svd.Split:
    """Like :func:`~effort_finetune.svd.decompose.split`, with triplets from the cache where present."""
    return svd.assemble(weight, cached_triplets(weight, rank))


def cached_triplets(weight: Tensor, rank: int) -> svd.Triplets:
    """Does what :func:`~effort_finetune.svd.decompose.smallest_triplets` does, by way of the cache.

    A cache folder that cannot be written is named in a warning, and the SVD computed each time.
    """
    path = cache_dir() / f"{content_key(weight, rank)}.safetensors"
    triplets = _read(path, weight, rank)
    if triplets is None:
        triplets = svd.smallest_triplets(weight, rank)
        _write(path, triplets)
    return triplets


def _read(path: Path, weight: Tensor, rank: int) -> svd.Triplets | None:
    if not path.is_file():
        return None
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        logger.warning("cached decomposition %s cannot be read (%s): computed anew", path, error)
        return None
    n, m = weight.shape
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    if shapes == {"U": (n, rank), "S": (rank,), "V": (rank, m)}:
        found = svd.Triplets(**tensors, method="inverse_iteration")
        if svd.residual_error(weight, found) <= _TOLERANCE:
            return found
    logger.warning("cached decomposition %s does not fit its weight: computed anew", path)
    return None


def _write(path: Path, triplets: svd.Triplets) -> None:
    tensors = {name: getattr(triplets, name).contiguous() for name in ("U", "S", "V")}
    try:
        atomic_write(path, lambda temporary: save_file(tensors, temporary))
    except OSError as error:
        logger.warning("decompositions are not cached: %s (%s)", path.parent, error.strerror or error)
