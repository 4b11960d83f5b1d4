"""One seed a run, streams derived from it for everything that draws at random."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, *stream: object) -> int:
    """Returns a 63-bit seed for a named stream of a run.

    Independent streams keep one consumer from shifting another: a further worker or
    bootstrap draw does not change the order in which training samples come.

    Args:
        seed: The run's ``manualSeed``.
        stream: Names or numbers of the stream, e.g. ``("shuffle", epoch)``.
    """
    digest = hashlib.sha256(repr((seed, *stream)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seeds Python's, numpy's and torch's global generators (all devices)."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def generator(seed: int, *stream: object) -> torch.Generator:
    """Returns a CPU generator for a named stream of the run."""
    import torch

    return torch.Generator().manual_seed(derive(seed, *stream))


def worker_init(worker_id: int) -> None:
    """Seeds Python's and numpy's generators in a loader worker from the seed torch gave it.

    torch already seeds itself per worker and epoch (base seed + worker id); Python and numpy
    would otherwise start as copies of the parent in every worker.
    """
    import torch

    seed = torch.initial_seed()
    random.seed(derive(seed, "python", worker_id))
    np.random.seed(derive(seed, "numpy", worker_id) % 2**32)


RawState = tuple[Any, Any, "torch.Tensor", "list[torch.Tensor]", "torch.Tensor | None"]


def capture() -> RawState:
    """Returns the state of Python's, numpy's and torch's generators, as they hand it out: microseconds."""
    import torch

    return (
        random.getstate(),
        np.random.get_state(),
        torch.get_rng_state(),
        torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
    )


def plain_state(raw: RawState) -> dict[str, Any]:
    """Returns what :func:`capture` took as tensors and plain containers, which a file can hold."""
    import torch

    (version, internal, gauss), (kind, keys, position, has_gauss, cached), on_cpu, on_cuda, on_mps = raw
    return {
        "python": [version, torch.tensor(internal, dtype=torch.int64), gauss],
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "torch": on_cpu,
        "cuda": on_cuda,
        "mps": on_mps,
    }


def restore_state(state: Mapping[str, Any]) -> None:
    """Puts back what :func:`plain_state` returned; devices that are not here are passed over."""
    import torch

    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal.tolist()), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    if torch.backends.mps.is_available() and state["mps"] is not None:
        torch.mps.set_rng_state(state["mps"])
