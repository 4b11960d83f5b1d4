"""Changed and cut files through every parser: a value or a refusal in our words, never anything else.

10^4 cases in a usual run, 10^6 with ``-m fuzz``, in ten parts (``-k part3``); a case has 5 seconds, and all
of them together 1 GB beyond what the process had before.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import make_layouts as golden
import pytest
import torch
from PIL import Image
from toyhost import EMBEDDED

from effort_finetune.config import Settings
from effort_finetune.config.resolve import load_yaml
from effort_finetune.core import strict_json
from effort_finetune.core.errors import UserError
from effort_finetune.core.locks import LOCK_NAME, holder
from effort_finetune.data import crop_record
from effort_finetune.data.container import container_of
from effort_finetune.data.decode import decode
from effort_finetune.data.index import load_index
from effort_finetune.data.picture_header import Unreadable
from effort_finetune.evaluate import results
from effort_finetune.evaluate.compared_runs import read_run
from effort_finetune.evaluate.foreign_scores import Columns, read_foreign
from effort_finetune.evaluate.score_file import COLUMNS, read_scores
from effort_finetune.host import open_host
from effort_finetune.install.record import MANIFEST, read_record
from effort_finetune.studies.board_file import read_board
from effort_finetune.studies.published import published_files, read_published
from effort_finetune.weights import statement
from effort_finetune.weights.reader import read_checkpoint
from effort_finetune.weights.vision_config import of_file

SECONDS, MORE_BYTES = 5, 1 << 30
Parser = Callable[[bytes, Path], object]


def _picture(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((24, 16), 40).convert("RGB").save(stream, kind)
    return stream.getvalue()


def _through_file(read: Callable[[Path], object], name: str) -> Parser:
    def parse(data: bytes, folder: Path) -> object:
        path = folder / name
        path.write_bytes(data)
        return read(path)

    return parse


def _saved(name: str, folder: Path) -> bytes:
    golden.EFFORT[name](folder / name)
    return (folder / name).read_bytes()


def _small_weights(folder: Path) -> bytes:
    torch.save({"backbone.encoder.layers.0.mlp.fc1.weight": torch.ones(2, 2)}, folder / "small.pth")
    return (folder / "small.pth").read_bytes()


INDEX = json.dumps({"A": {"A_Real": {"test": {"0": {"label": "A_Real", "frames": ["A\\0\\000.png"]}}}}})
SCORES = ",".join(COLUMNS) + "\nA,A/0,'=f.png,1,0.5,0.25\n"
YAML = "optimizer:\n  lr: 1e-3\nmean: [0.1, 0.2, 0.3]\nlabel_dict: {A: 0}\n"
CROPS = json.dumps(
    {
        "options": {"finder": "cropped", "size": 64, "margin": None},
        "skipped": {"a link": 1},
        "sources": [
            {"title": "real/0", "root": "/r", "place": "0.mp4", "kind": "video", "split": None, "look": "a",
             "sha256": "b", "shape": "c", "frames": 2, "crops": 2, "reasons": {"cut": 1}},
            {"removed": "fake/1"},
        ],
    }
)  # fmt: skip
RESULTS = json.dumps({"schema_version": "1.2", "kind": "evaluation", "status": "complete", "datasets": {}})
HOST_RESULTS = json.dumps({"datasets": {"A": {"auc": 0.9, "video_auc": 0.5}}, "protocol": {"a": 1}})


HOST = open_host(EMBEDDED)


def _index(data: bytes, folder: Path) -> object:
    (folder / "A.json").write_bytes(data)
    index = load_index(HOST, Settings(dataset_json_folder=str(folder)), "A")
    return [index.videos(split) for split in ("train", "val", "test")]


def _look_at(data: bytes, folder: Path) -> object:
    container_of(data)
    return decode(data)


def _installation(data: bytes, folder: Path) -> object:
    (folder / MANIFEST).write_bytes(data)
    return read_record(folder)


def _crops(data: bytes, folder: Path) -> object:
    (folder / "crops.json").write_bytes(data)
    record = crop_record.read_record(folder)
    for report in () if record is None else record.reports.values():
        for place in report.places(folder):
            assert folder in Path(os.path.normpath(place)).parents
    return record


#: Parser, seed, and its share of the cases.
CASES: dict[str, tuple[Parser, Callable[[Path], bytes], float, tuple[type[Exception], ...]]] = {
    **{
        kind: (_look_at, lambda _, kind=kind: _picture(kind), 0.1, (Unreadable,))
        for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
    },
    "json": (
        _through_file(strict_json.read_json, "a.json"),
        lambda _: INDEX.encode(),
        0.1,
        (ValueError, OSError),
    ),
    "index": (_index, lambda _: INDEX.encode(), 0.03, (UserError,)),
    "crops.json": (_crops, lambda _: CROPS.encode(), 0.03, (UserError,)),
    "results": (_through_file(results.read, "results.json"), lambda _: RESULTS.encode(), 0.01, (UserError,)),
    "host results": (
        _through_file(lambda path: read_run(path, "x"), "a.json"),
        lambda _: HOST_RESULTS.encode(),
        0.01,
        (UserError,),
    ),
    "statement": (
        lambda data, _: statement.of_text(data.decode(errors="replace"), "x"),
        lambda _: b'{"mean": [0.1, 0.2, 0.3], "resolution": 224, "calibration": {"bias": 1}}',
        0.06,
        (UserError,),
    ),
    "yaml": (_through_file(load_yaml, "a.yaml"), lambda _: YAML.encode(), 0.05, (UserError,)),
    "scores": (_through_file(read_scores, "a.csv"), lambda _: SCORES.encode(), 0.05, (UserError,)),
    "foreign scores": (
        _through_file(lambda path: read_foreign(path, Columns(video=("video",))), "a.csv"),
        lambda _: SCORES.encode(),
        0.03,
        (UserError,),
    ),
    "leaderboard": (
        _through_file(read_board, "a.yaml"),
        lambda _: b"detectors: [{name: a, weights: a.pth}]\ndatasets: [A]\nseeds: [1]\n",
        0.01,
        (UserError,),
    ),
    "published": (
        _through_file(lambda path: read_published(path.name, path.parent), "a.yaml"),
        lambda _: next(iter(published_files().values())).read_bytes()[:1500],
        0.005,
        (UserError,),
    ),
    "installation": (
        _installation,
        lambda _: b'{"version": "0.2", "patched": {}, "created": {}, "folders": []}',
        0.03,
        (UserError,),
    ),
    "preprocessor": (
        _through_file(statement.beside, statement.PREPROCESSOR_CONFIG),
        lambda _: (
            b'{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "size": {"shortest_edge": 224}}'
        ),
        0.03,
        (UserError,),
    ),
    "tower": (
        _through_file(lambda path: of_file(path, required=True), "config.json"),
        lambda _: b'{"vision_config": {"hidden_size": 32, "num_hidden_layers": 2, "patch_size": 14}}',
        0.03,
        (UserError,),
    ),
    "lock": (
        lambda data, folder: ((folder / LOCK_NAME).write_bytes(data), holder(folder)),
        lambda _: b'{"pid": 1, "born": "2", "host": "a", "since": "now", "command": "finetune"}',
        0.03,
        (),
    ),
    "zip": (_through_file(read_checkpoint, "a.pth"), _small_weights, 0.01, (UserError,)),
    "safetensors": (
        _through_file(read_checkpoint, "a.safetensors"),
        lambda folder: _saved("deepfakebench.safetensors", folder)[:20000],
        0.01,
        (UserError,),
    ),
}


#: What parsers of text stumble over: depth, numbers without bound, values of other kinds, half characters.
NASTY = (
    *(b"[" * 4000, b'{"a":' * 4000, b"- " * 2000, b"&a [*a, *a]", b"<<: *a", b"!!python/object:os.system"),
    *(b"[" + b"1," * 3000, b"59:" * 300, b"59:" * 300 + b"1.5", b'!!int ""', b"!!bool x", b"!!timestamp x"),
    *(
        b"1e999",
        b"-1e999",
        b"NaN",
        b"Infinity",
        b"9" * 5000,
        b"9" * 25,
        b"null",
        b"true",
        b"[]",
        b"{}",
        b'""',
    ),
    *(
        b'"\\ud800"',
        b"\xed\xa0\x80",
        b"\x00",
        b"\x1b[2J",
        b"\r\n",
        b"../../../etc",
        b"/dev/zero",
        b",,,,",
        b'"',
    ),
)


def _changed(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8))):
        place = draw.randrange(len(changed) or 1)
        match draw.randrange(7):
            case 0:
                changed[place : place + 1] = bytes([draw.randrange(256)])
            case 1:
                del changed[place : place + draw.choice((1, 4, 1000))]
            case 2:
                changed[place:place] = draw.randbytes(draw.choice((1, 4, 64)))
            case 3:
                changed[place : place + 4] = draw.choice((b"\xff" * 4, b"\x7f\xff\xff\xff", bytes(4)))
            case 4:
                changed[place:place] = changed[: draw.choice((1, 16, 200))]
            case 5:
                changed = changed[:place]
            case 6:
                changed[place:place] = draw.choice(NASTY)
    return bytes(changed)


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    def late(number: int, *_: object) -> None:
        raise AssertionError(
            f"more than {SECONDS} s" if number == signal.SIGPROF else "it waits for something"
        )

    before = {number: signal.signal(number, late) for number in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of the processor: a busy machine is no fault of a parser
    signal.alarm(20 * SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _fuzz(name: str, count: int, folder: Path, part: str = "") -> None:
    parse, seed, share, refusals = CASES[name]
    data, draw = seed(folder), random.Random(name + part)
    parse_or_refuse = contextlib.suppress(*refusals)
    before = _peak()  # of the process: whatever ran in it earlier is in it
    for number in range(max(1, int(count * share))):
        case = _changed(data, draw)
        try:
            with _bounded(), parse_or_refuse:
                parse(case, folder)
        except BaseException:
            (folder / "case").write_bytes(case)
            print(f"{name} {number}: {folder / 'case'}")
            raise
    assert _peak() - before < MORE_BYTES


@pytest.mark.parametrize("name", CASES)
def test_any_bytes_are_read_or_refused(name, tmp_path):
    _fuzz(name, 10_000, tmp_path)


@pytest.mark.fuzz
@pytest.mark.parametrize("part", [f"part{number}" for number in range(10)])
@pytest.mark.parametrize("name", CASES)
def test_a_million_cases(name, part, tmp_path):
    _fuzz(name, 100_000, tmp_path, part)
