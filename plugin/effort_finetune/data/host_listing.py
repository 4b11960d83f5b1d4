"""Whether the host's own dataset class lists what we list: asked once per host and index, kept in the cache.

Rows come from the index (:mod:`effort_finetune.data.collect`). A host may have changed what its class reads;
a result says whether the two agree.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from effort_finetune.core.counted import counted
from effort_finetune.core.errors import UserError
from effort_finetune.core.files import cache_folder, write_json
from effort_finetune.data.collect import collect_rows

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.data.index import DatasetIndex
    from effort_finetune.host import Host

EQUAL = "equal"
FOLDER = "not comparable: a folder, which a host's class does not read"
_VERSION = 1  # of the comparison, part of the cache's key
_REASON = 300  # characters of a reason that are kept


def listing_verdict(host: Host, settings: Settings, index: DatasetIndex, *, split: str, asked: int) -> str:
    """Compares our listing of a split with that of the host's dataset class.

    Both take the first ``asked`` frames of each video: a host does under the name of even spacing, and
    ``frame_sampling: uniform`` has no counterpart there.

    Args:
        host: Its ``dataset/abstract_dataset.py`` is imported unless the cache has the answer.
        settings: ``label_dict`` is read.
        index: The dataset's index.
        split: ``train``, ``val`` or ``test``.
        asked: Frames per video.

    Returns:
        ``equal``, ``differs by <n> rows`` or ``not comparable: <reason>``; the last is asked anew each time.
    """
    kept = cache_folder("listings") / f"{_key(host, settings, index, split, asked)}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(kept.read_text(encoding="utf-8"))["listing"])
    try:
        theirs = set(host_listing(host, settings, index, split=split, asked=asked))
    except Exception as error:  # a host raises what it likes; a comparison is no reason to stop
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        return f"not comparable: {' '.join(reason.split())[:_REASON]}"
    ours = {
        (plain(row.path), row.class_id)
        for row in collect_rows(settings, index, split=split, asked=asked, sampling="first").rows
    }
    number = len(ours ^ theirs)
    verdict = f"differs by {counted(number, 'row')}" if number else EQUAL
    with contextlib.suppress(OSError):  # a cache that cannot be written is asked again, no more
        write_json(kept, {"listing": verdict, "index": str(index.path), "split": split})
    return verdict


def host_listing(
    host: Host, settings: Settings, index: DatasetIndex, *, split: str, asked: int
) -> Iterator[tuple[str, int]]:
    """Yields (path with slashes, class of ``label_dict``) as the host's class lists them.

    The class is used without its constructor, which opens LMDB environments and knows neither ``val`` nor
    several training sets. Its import and its shuffle touch the global generators, which are put back.

    Raises:
        UserError: If the class cannot be imported.
        Exception: Whatever the listing itself raises.
    """
    with quiet(), generators_kept():
        reader: Any = object.__new__(host.dataset_class)
        reader.config = {
            **settings.to_dict(),
            "dataset_json_folder": str(index.path.parent),
            "compression": index.compression,
            "frame_num": dict.fromkeys(("train", "val", "test"), asked),
            "frame_sampling": "first",
            "lmdb": False,
        }
        reader.mode = split
        reader.compression = index.compression
        reader.frame_num = asked
        reader.video_level = False
        reader.clip_size = None
        reader.lmdb = False
        reader.image_list, reader.label_list = [], []
        paths, labels = reader.collect_img_and_label_for_one_dataset(index.name)[:2]
    for path, label in zip(paths, labels, strict=True):
        yield plain(str(path)), int(label)


def plain(path: str) -> str:
    """Returns a listed path with slashes, by which two spellings of one frame are compared."""
    return path.replace("\\", "/").removeprefix("./")


def _key(host: Host, settings: Settings, index: DatasetIndex, split: str, asked: int) -> str:
    """Changes with everything the verdict follows from: the class, the index, what is asked of them."""
    facts: list[Any] = [_VERSION, split, asked, index.name, index.compression, dict(settings.label_dict)]
    for path in (*sorted((host.root / "training/dataset").glob("*.py")), index.path):
        state = path.stat()
        facts.append([str(path), state.st_size, state.st_mtime_ns])
    facts.append(_stamp(Path(__file__).parent / name for name in ("collect.py", "index.py", "sampling.py")))
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _stamp(files: Iterable[Path]) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside: what foreign code prints is not shown."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """Puts Python's, numpy's and torch's generators back."""
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.random.set_rng_state(states[2])
