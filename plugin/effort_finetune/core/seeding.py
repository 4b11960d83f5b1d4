"""One seed a run, streams derived from it for everything that draws at random."""

from __future__ import annotations

import hashlib
import random

import numpy as np
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
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def generator(seed: int, *stream: object) -> torch.Generator:
    """Returns a CPU generator for a named stream of the run."""
    return torch.Generator().manual_seed(derive(seed, *stream))


def worker_init(worker_id: int) -> None:
    """Seeds Python's and numpy's generators in a loader worker from the seed torch gave it.

    torch already seeds itself per worker and epoch (base seed + worker id); Python and numpy
    would otherwise start as copies of the parent in every worker.
    """
    seed = torch.initial_seed()
    random.seed(derive(seed, "python", worker_id))
    np.random.seed(derive(seed, "numpy", worker_id) % 2**32)
