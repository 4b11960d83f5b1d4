"""Builds the demo's three datasets: LMDB of PNG crops and JSON index, as DeepfakeBench keeps them."""

from __future__ import annotations

import multiprocessing
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from effort_finetune.core.progress import track
from effort_finetune.data.index import Video
from effort_finetune.data.write_dataset import write_index, write_lmdb
from examples.demo.attributes import draw_camera, draw_delivery, draw_identity, draw_scene
from examples.demo.clip import capture, deliver, record
from examples.demo.forge import FORGERS, Footage

NAMES = ("DemoA", "DemoB", "DemoC")
CHUNK = 8  # videos drawn together; each lends its face to the next


@dataclass(frozen=True)
class Size:
    """How many pairs (one real video, one forged from it) each split gets, and frames per video."""

    train: int
    val: int
    test: int
    frames: int = 4


SIZES: Mapping[str, Size] = {
    "DemoA": Size(train=80, val=16, test=64),
    "DemoB": Size(train=128, val=24, test=64),
    "DemoC": Size(train=8, val=8, test=64),  # for testing; the other splits only keep hosts content
}


@dataclass(frozen=True)
class _Chunk:
    """A piece of work: pairs ``first`` to ``last`` (exclusive) of one split of one dataset.

    ``names`` are the video names of each pair, real and fake: neighbours in random order, so that no name
    tells the label, and no two videos share one (hosts merge videos of one name).
    """

    dataset: str
    split: str
    first: int
    last: int
    frames: int
    seed: int
    names: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class DemoVideo:
    """One video as files: ``images`` are PNG bytes, ``masks`` too (none for a real video)."""

    name: str
    group: str
    split: str
    images: list[bytes]
    masks: list[bytes]


def _png(image: np.ndarray) -> bytes:
    # Noisy crops hold nothing that repeats: without the search for it a PNG is smaller and faster to write.
    options = [
        cv2.IMWRITE_PNG_COMPRESSION,
        2,
        cv2.IMWRITE_PNG_STRATEGY,
        cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY,
    ]
    done, data = cv2.imencode(".png", image, options)
    if not done:
        raise RuntimeError("OpenCV could not encode a PNG")
    return bytes(data.tobytes())


def draw_chunk(chunk: _Chunk) -> list[DemoVideo]:
    """Draws the videos of a chunk; they depend on the chunk alone, not on the process it is drawn in."""
    cv2.setNumThreads(1)
    code = zlib.crc32(chunk.dataset.encode())
    generators = [np.random.default_rng([chunk.seed, code, i]) for i in range(chunk.first, chunk.last)]
    footage = []
    for rng in generators:
        clip = record(draw_identity(rng), draw_scene(rng), chunk.frames, rng)
        camera = draw_camera(rng)
        footage.append(Footage(np.stack([capture(f, camera, rng) for f in clip.frames]), clip.landmarks))
    forge = FORGERS[chunk.dataset[-1]]
    out = []
    for i, rng in enumerate(generators):
        real_name, fake_name = chunk.names[i]
        way = draw_delivery(rng)
        real = [_png(deliver(frame, way)[..., ::-1]) for frame in footage[i].frames]
        out.append(DemoVideo(real_name, "real", chunk.split, real, []))
        pairs = forge(footage[i], footage[(i + 1) % len(footage)], rng)
        way = draw_delivery(rng)
        fake = [_png(deliver(frame, way)[..., ::-1]) for frame, _ in pairs]
        masks = [_png((mask * 255 + 0.5).astype(np.uint8)) for _, mask in pairs]
        out.append(DemoVideo(fake_name, "fake", chunk.split, fake, masks))
    return out


def _chunks(name: str, size: Size, seed: int) -> list[_Chunk]:
    out, start = [], 0
    total = size.train + size.val + size.test
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    places, real = rng.permutation(total), rng.integers(2, size=total)
    names = [(f"{2 * p + r:04d}", f"{2 * p + 1 - r:04d}") for p, r in zip(places, real, strict=True)]
    for split in ("train", "val", "test"):
        pairs = getattr(size, split)
        if pairs == 1:
            raise ValueError(
                f"{name} {split}: a forgery needs another face, so a split has 0 or >= 2 pairs, got 1"
            )
        for piece in np.array_split(np.arange(start, start + pairs), max(1, -(-pairs // CHUNK))):
            if len(piece):
                first, last = int(piece[0]), int(piece[-1]) + 1
                out.append(_Chunk(name, split, first, last, size.frames, seed, tuple(names[first:last])))
        start += pairs
    return out


def _items(name: str, videos: Iterator[DemoVideo], index: list[Video]) -> Iterator[tuple[str, bytes]]:
    """Yields the LMDB's (key, value) pairs and fills ``index`` on the way."""
    for video in videos:
        keys = [f"{name}\\{video.group}\\frames\\{video.name}\\{t:03d}.png" for t in range(len(video.images))]
        yield from zip(keys, video.images, strict=True)
        for key, mask in zip(keys, video.masks, strict=False):
            yield key.replace("\\frames\\", "\\masks\\"), mask
        label = f"{name}_{video.group.capitalize()}"
        index.append(Video(name, label, label, None, video.name, video.split, tuple(keys)))


def build_demo(
    lmdb_dir: Path,
    json_dir: Path,
    *,
    seed: int = 1024,
    names: Sequence[str] = NAMES,
    sizes: Mapping[str, Size] = SIZES,
    processes: int = 2,
) -> dict[str, Path]:
    """Builds demo datasets; each appears whole or not at all.

    Args:
        lmdb_dir: gets ``<name>_lmdb``.
        json_dir: gets ``<name>.json``, written after the LMDB, so that an index never points at nothing.
        seed: the same seed gives the same bytes, whatever ``processes`` is.
        names: datasets to build; the last letter names the family of forgery (``forge.FORGERS``).
        sizes: pairs per split and frames per video, by dataset.
        processes: how many processes draw.

    Returns:
        Path of the JSON index, by dataset.
    """
    work = {name: _chunks(name, sizes[name], seed) for name in names}
    out = {}
    with _mapper(processes) as draw:
        for name, chunks in work.items():
            index: list[Video] = []
            batches = track(draw(chunks), desc=name, total=len(chunks), unit="chunk")
            videos = (video for batch in batches for video in batch)
            write_lmdb(Path(lmdb_dir) / f"{name}_lmdb", _items(name, videos, index))
            out[name] = write_index(Path(json_dir), name, index)
    return out


@contextmanager
def _mapper(processes: int) -> Iterator[Callable[[list[_Chunk]], Iterator[list[DemoVideo]]]]:
    """Yields what draws chunks, in order, in this process or in several."""
    if processes == 1:
        yield partial(map, draw_chunk)
        return
    pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield partial(pool.map, draw_chunk)
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C nobody waits for the rest
