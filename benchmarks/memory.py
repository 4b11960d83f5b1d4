"""Memory of a command while many files go through it: `prepare` over videos, `predict` over pictures.

    python benchmarks/memory.py prepare --faces mtcnn --json benchmarks/results/memory_prepare_mtcnn.json
    python benchmarks/memory.py predict --weights FILE --json benchmarks/results/memory_predict.json
    python benchmarks/memory.py prepare --files 6 --tenths 2     # does it run?

The files are made first: clips of one photo (scikit-image's astronaut), turned and moving, in four
containers, or pictures of its face. The command runs as a process of its own; resident memory of it and of
its workers is read from /proc five times a second (Linux), beside the number of files that are done. A row is
a tenth of the files: the most that the processes held at once in it. What a finder costs in processor seconds
stands under them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from finders import FACE, SIDE
from skimage import data

from effort_finetune.core.files import write_json
from effort_finetune.data.crop_record import JOURNALS

#: Suffix and codec of the clips, in turns.
CONTAINERS = ((".mp4", "mp4v"), (".avi", "MJPG"), (".mkv", "mp4v"), (".webm", "VP80"))
FRAMES, FPS = 12, 12.0  # of a clip
EVERY = 0.2  # seconds between two looks
HEAD = (sys.executable, "-m", "effort_finetune")


def write_clip(path: Path, codec: str, seed: int) -> None:
    """A clip of the photo: turned by up to 15 degrees, .7 to 1.1 of its size, drifting."""
    photo, rng = data.astronaut(), np.random.default_rng(seed)
    turn, scale, drift = rng.uniform(-15, 15), rng.uniform(0.7, 1.1), rng.uniform(-1.5, 1.5, 2)
    light = rng.uniform(0.8, 1.15, 3)
    film = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), FPS, (SIDE, SIDE))
    if not film.isOpened():
        raise SystemExit(f"this OpenCV writes no {codec} into {path.suffix}")
    for number in range(FRAMES):
        move = cv2.getRotationMatrix2D(FACE, turn + 0.7 * number, scale)
        move[:, 2] += np.subtract((SIDE / 2, SIDE / 2), FACE) + drift * number
        frame = cv2.warpAffine(photo, move, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT) * light
        film.write(cv2.cvtColor(frame.clip(0, 255).astype(np.uint8), cv2.COLOR_RGB2BGR))
    film.release()


def write_clips(folder: Path, count: int) -> None:
    """``real/`` and ``fake/`` in equal parts."""
    for number in range(count):
        suffix, codec = CONTAINERS[number // 2 % len(CONTAINERS)]
        place = folder / ("real", "fake")[number % 2] / f"{number:04d}{suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        write_clip(place, codec, number)


def write_pictures(folder: Path, count: int) -> None:
    """Pictures of the photo about its face, each with other light, as JPEG."""
    folder.mkdir(parents=True, exist_ok=True)
    x, y = FACE
    face = data.astronaut()[y - 100 : y + 100, x - 100 : x + 100]
    for number in range(count):
        light = np.random.default_rng(number).uniform(0.7, 1.2, 3)
        picture = cv2.cvtColor((face * light).clip(0, 255).astype(np.uint8), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / f"{number:04d}.jpg"), picture)


def watch(words: Sequence[str], done: Callable[[], int]) -> dict[str, Any]:
    """Runs a command to its end, looking at its memory.

    Args:
        words: The command.
        done: Says how many files are done.

    Returns:
        ``looks`` as (files done, MiB of the command, MiB of its workers), ``wall_s`` and ``cpu_s``.

    Raises:
        SystemExit: It failed.
    """
    before, started = _processor_seconds(), time.perf_counter()
    looks: list[tuple[int, float, float]] = []
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([*HEAD, *words], stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None:
            looks.append((done(), _resident(process.pid), sum(map(_resident, _below(process.pid)))))
            time.sleep(EVERY)
        if process.returncode:
            log.seek(0)
            raise SystemExit(log.read().decode(errors="replace")[-2000:])
    return {
        "looks": looks,
        "wall_s": time.perf_counter() - started,
        "cpu_s": _processor_seconds() - before,
    }


def _processor_seconds() -> float:
    """Of all children that have ended, and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _below(pid: int) -> list[int]:
    """All processes below one."""
    found: list[int] = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(word) for word in listing.read_text().split()]
        except OSError:  # it ended meanwhile
            continue
        for child in children:
            found += [child, *_below(child)]
    return found


def _resident(pid: int) -> float:
    """MiB of a process; 0 where it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def tenths(looks: Sequence[tuple[int, float, float]], files: int, parts: int = 10) -> list[dict[str, float]]:
    """The most that was held at once in each tenth of the files."""
    rows = []
    for part in range(parts):
        first, last = files * part // parts, files * (part + 1) // parts
        within = [(own, workers) for count, own, workers in looks if first <= count < last]
        if within:
            rows.append(
                {
                    "files": last,
                    "command_mib": round(max(own for own, _ in within), 1),
                    "workers_mib": round(max(workers for _, workers in within), 1),
                    "together_mib": round(max(own + workers for own, workers in within), 1),
                }
            )
    return rows


def of_prepare(options: argparse.Namespace, root: Path) -> dict[str, Any]:
    """`prepare crop` over the clips."""
    write_clips(root / "clips", options.files)
    journal = root / "rgb" / "Clips" / JOURNALS / "all.jsonl"
    words = (
        *("prepare", "crop", "Clips", "--videos", str(root / "clips"), "--rgb_dir", str(root / "rgb")),
        *("--faces", options.faces, "--jobs", str(options.jobs), "--num_frames", str(options.frames)),
    )
    seen = watch(words, lambda: _lines(journal, heading=1))
    record = json.loads((root / "rgb" / "Clips" / "crops.json").read_text())
    counts = {
        key: sum(source[key] for source in record["sources"])
        for key in ("frames", "crops", "no_face", "lost", "unreadable")
    }
    return {**seen, "faces": options.faces, "jobs": options.jobs, "counts": counts}


def of_predict(options: argparse.Namespace, root: Path) -> dict[str, Any]:
    """`predict` over the pictures."""
    if options.weights is None:
        raise SystemExit("predict takes --weights FILE")
    write_pictures(root / "pictures", options.files)
    records = root / "records.jsonl"
    words = (
        *("predict", str(root / "pictures"), "--weights", str(options.weights), "--faces", options.faces),
        *("--jsonl", str(records), "--device", "cpu"),
    )
    seen = watch(words, lambda: _lines(records))
    return {**seen, "faces": options.faces, "counts": {"records": _lines(records)}}


def _lines(path: Path, *, heading: int = 0) -> int:
    """Lines of a file that is being written, below its heading; 0 where there is none yet."""
    found = [path] if path.exists() else list(path.parent.glob(f".{path.name}*"))
    return max((max(file.read_bytes().count(b"\n") - heading, 0) for file in found), default=0)


def main(words: Sequence[str] | None = None) -> None:
    """Prints a row for each tenth of the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("command", choices=["prepare", "predict"])
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--faces", default="mtcnn")
    parser.add_argument("--frames", type=int, default=4, help="of a clip")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--tenths", type=int, default=10, help="rows")
    parser.add_argument("--weights", type=Path, help="for predict")
    parser.add_argument("--json", type=Path, help="write the figures")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        made = {"prepare": of_prepare, "predict": of_predict}[options.command](options, Path(folder))
    looks = made.pop("looks")
    rows = tenths(looks, options.files, options.tenths)
    print(f"{'files':>6}{'command':>10}{'workers':>10}{'together':>10}  MiB")
    for row in rows:
        print(
            f"{row['files']:>6}{row['command_mib']:>10.0f}{row['workers_mib']:>10.0f}{row['together_mib']:>10.0f}"
        )
    print(made["counts"], f"{made['cpu_s']:.0f} processor seconds, {made['wall_s']:.0f} s")
    if options.json is not None:
        write_json(options.json, {"command": options.command, "files": options.files, **made, "rows": rows})


if __name__ == "__main__":
    main()
