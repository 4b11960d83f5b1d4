"""The commands of the soak: what each needs, what is typed, and what has to be the same to the bit."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import lmdb
import numpy as np
import torch
import transformers  # noqa: F401  imported once, before the commands are forked
from safetensors.torch import load_file

from effort_finetune.cli.main import main

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import toyhost

from effort_finetune.evaluate import evaluation  # noqa: F401
from effort_finetune.export import merged, peft  # noqa: F401
from effort_finetune.host.marked_blocks import strip
from effort_finetune.train import finetuning  # noqa: F401

LABELS = {"Toy_Real": 0, "Toy_Fake": 1}


@dataclass(frozen=True)
class Command:
    """One command in a folder of its own.

    Attributes:
        name: What the soak calls it.
        make: Puts what it needs into a folder.
        words: What is typed, paths below the folder.
        outputs: SHA-256 of what it wrote, by name.
        resume: What is typed to go on, if that is not the same again.
        full_disk: Its exit code where the disk is full.
    """

    name: str
    make: Callable[[Path, Path], None]
    words: tuple[str, ...]
    outputs: Callable[[Path], dict[str, str]]
    resume: tuple[str, ...] = ()
    full_disk: int = 1

    def again(self, folder: Path) -> tuple[str, ...]:
        """What a user types after it was cut off."""
        state = (folder / "run" / "ckpt_last.pth").exists()
        return (*self.words, *self.resume) if self.resume and state else self.words


def run_command(words: tuple[str, ...], folder: str, log: str) -> None:
    """Runs a command in this process, which ends with its exit code and leads a group of its own."""
    os.setpgid(0, 0)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for descriptor in (1, 2):
        os.dup2(out, descriptor)
    os.chdir(folder)
    os.environ |= {"XDG_CACHE_HOME": f"{folder}/cache", "DEEPFAKEBENCH_ROOT": f"{folder}/host"}
    torch.set_num_threads(1)
    script = sys.modules["__main__"]  # spawned processes of the command would import it again
    script.__spec__, script.__file__ = None, None
    sys.argv = ["effort-finetune", *words]
    try:
        code = main(list(words))
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def prepare_inputs(folder: Path, *, crops: bool = True, run: bool = True) -> None:
    """Writes what the commands read: a host with data and a tower, pictures; crops and a run if wanted."""
    host = toyhost.link_host(folder / "host")
    videos = toyhost.list_videos("Toy", LABELS, {"train": 4, "val": 2, "test": 2})
    toyhost.write_dataset(host, "Toy", videos, toyhost.noise(LABELS), layout=toyhost.IN_HOST)
    toyhost.save_clip(folder / "clip")
    draw = np.random.default_rng(0)
    for label in ("real", "fake"):
        for number in range(12):
            clip = folder / "pictures" / label / f"clip{number:02d}"
            clip.mkdir(parents=True)
            for frame in range(2):
                cv2.imwrite(str(clip / f"{frame}.png"), draw.integers(0, 255, (96, 96, 3), np.uint8))
    first = {"crops": (crops, _with_pictures, CROP), "finished": (run, with_host, (*TRAIN, "--nEpochs", "1"))}
    for name, (wanted, make, words) in first.items():
        if not wanted:
            continue
        make(folder, folder / name)
        child = os.fork()
        if child == 0:
            run_command(words, str(folder / name), str(folder / f"{name}.log"))
        if os.waitpid(child, 0)[1]:
            raise SystemExit((folder / f"{name}.log").read_text())


def unreadable(folder: Path) -> Iterator[str]:
    """Says which files are cut or of another kind than their name; temporaries are looked at by nobody."""
    readers: dict[str, Callable[[Path], object]] = {
        ".json": lambda path: json.loads(path.read_text()),
        ".pth": lambda path: torch.load(path, weights_only=True),
        ".safetensors": load_file,
        ".png": _decoded,
        ".npy": np.load,
        ".mdb": lambda path: _entries(path.parent) if path.name == "data.mdb" else None,
        ".py": lambda path: compile(path.read_text(), str(path), "exec"),
    }
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.endswith(".tmp")]
        for path in (Path(place) / name for name in names):
            if path.suffix in readers and not path.name.endswith(".tmp") and path.is_file():
                try:
                    readers[path.suffix](path)
                except Exception as error:
                    yield f"{path.relative_to(folder)} cannot be read: {error!r}"


def _decoded(path: Path) -> None:
    if cv2.imread(str(path)) is None:
        raise ValueError("no picture")


def with_host(inputs: Path, folder: Path) -> None:
    """A host with data, and a tower beside it."""
    shutil.copytree(inputs / "host", folder / "host", symlinks=True, dirs_exist_ok=True)
    shutil.copytree(inputs / "clip", folder / "clip")


def _with_pictures(inputs: Path, folder: Path) -> None:
    toyhost.link_host(folder / "host")
    shutil.copytree(inputs / "pictures", folder / "pictures")


def _with_crops(inputs: Path, folder: Path) -> None:
    toyhost.link_host(folder / "host")
    shutil.copytree(inputs / "crops" / "rgb", folder / "rgb")


def _with_run(inputs: Path, folder: Path) -> None:
    toyhost.link_host(folder / "host")
    shutil.copytree(inputs / "finished" / "run", folder / "run")


def _with_measured(inputs: Path, folder: Path) -> None:
    with_host(inputs, folder)
    shutil.copy(inputs / "finished" / "published.pth", folder)


def _with_checkout(inputs: Path, folder: Path) -> None:
    training = folder / "host" / "training"
    for name in ("train.py", "test.py", "detectors/__init__.py", "metrics/utils.py", "trainer/trainer.py"):
        path = training / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(strip((toyhost.EMBEDDED / "training" / name).read_bytes()))
    for name in ("config", "dataset", "metrics", "detectors"):
        source = toyhost.EMBEDDED / "training" / name
        for path in source.rglob("*.*"):
            target = training / name / path.relative_to(source)
            if not target.exists() and "__pycache__" not in path.parts and "effort" not in path.name:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _files(folder: Path, pattern: str = "**/*") -> dict[str, str]:
    return {
        str(path.relative_to(folder)): _hash(path.read_bytes())
        for path in sorted(folder.glob(pattern))
        if path.is_file() and not path.name.endswith(".lock")
    }


def _entries(folder: Path) -> str:
    digest = hashlib.sha256()
    with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
        for key, value in transaction.cursor():
            digest.update(key + value)
    return digest.hexdigest()


def numbers_of_run(folder: Path, out: str) -> dict[str, str]:
    """What a training or a measurement found, as hashes."""
    document = json.loads((folder / out / "results.json").read_text())
    block = document["datasets"]["Toy"]
    numbers = {key: block[key] for key in ("frame", "video", "loss", "scores_sha256", "counts")}
    weights = {path.name: _hash(path.read_bytes()) for path in (folder / out).glob("ckpt_best.pth")}
    return {
        **weights,
        "results": _hash(json.dumps(numbers, sort_keys=True).encode()),
        "status": document["status"],
    }


def _of_run(folder: Path) -> dict[str, str]:
    return {**numbers_of_run(folder, "run"), "published": _hash((folder / "published.pth").read_bytes())}


def _of_measured(folder: Path) -> dict[str, str]:
    return {**numbers_of_run(folder, "measured"), **_files(folder / "measured", "*.csv")}


def _of_crops(folder: Path) -> dict[str, str]:
    return _files(folder / "rgb", "**/*.png")


def _of_index(folder: Path) -> dict[str, str]:
    return _files(folder / "json")


def _of_lmdb(folder: Path) -> dict[str, str]:
    return {"entries": _entries(folder / "lmdb" / "Own_lmdb")}


def _of_export(folder: Path) -> dict[str, str]:
    return _files(folder / "out")


def _of_host(folder: Path) -> dict[str, str]:
    return {n: h for n, h in _files(folder / "host").items() if "__pycache__" not in n and n[0] != "."}


def _of_cache(folder: Path) -> dict[str, str]:
    return {**_of_run(folder), **_files(folder / "cache", "**/*.safetensors")}


TRAIN = (
    "finetune", "--clip_path", "clip", "--head_width", "16", "--resolution", "32", "--train_dataset", "Toy",
    "--test_dataset", "Toy", "--train_batchSize", "4", "--optimizer.lr", "1e-3", "--workers", "0",
    "--bootstrap_samples", "20", "--device", "cpu", "--precision", "float32", "--output_dir", "run",
    "--save_to", "published.pth",
)  # fmt: skip
CROP = (
    "prepare", "crop", "Own", "--videos", "pictures", "--faces", "cropped", "--size", "64", "--jobs", "1",
    "--rgb_dir", "rgb",
)  # fmt: skip
MEASURE = (
    "evaluate", "--weights", "published.pth", "--test_dataset", "Toy", "--resolution", "32",
    "--head_width", "16", "--workers", "2", "--bootstrap_samples", "20", "--device", "cpu", "--precision",
    "float32", "--output_dir", "measured",
)  # fmt: skip


def _two(words: tuple[str, ...], one: str = "0") -> tuple[str, ...]:
    """The command with two processes that help it."""
    return tuple("2" if word == one else word for word in words)


COMMANDS = (
    Command("train", with_host, (*TRAIN, "--nEpochs", "3", "--rec_iter", "2"), _of_run, ("--resume", "run")),
    Command("crop", _with_pictures, CROP, _of_crops),
    Command(
        "index",
        _with_crops,
        ("prepare", "index", "Own", "--rgb_dir", "rgb", "--dataset_json_folder", "json"),
        _of_index,
    ),
    Command(
        "lmdb", _with_crops, ("prepare", "lmdb", "Own", "--rgb_dir", "rgb", "--lmdb_dir", "lmdb"), _of_lmdb
    ),
    Command("cache", with_host, (*TRAIN, "--nEpochs", "1"), _of_cache, ("--resume", "run")),
    Command("export", _with_run, ("export", "run", "--to", "merged", "--output", "out"), _of_export),
    Command("install", _with_checkout, ("install", "host"), _of_host, full_disk=2),
    Command("evaluate", _with_measured, MEASURE, _of_measured),
    Command("train, 2 workers", with_host, (*_two(TRAIN), "--nEpochs", "2"), _of_run, ("--resume", "run")),
    Command("crop, 2 jobs", _with_pictures, _two(CROP, "1"), _of_crops),
)
