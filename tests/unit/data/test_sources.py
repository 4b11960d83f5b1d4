import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from effort_finetune.data.frames import Missing, open_frames
from effort_finetune.data.index import Video
from effort_finetune.data.sources import FileSource

from .conftest import Bench, video

LISTED = {
    "backslashes": "UADFV\\UADFV_Real\\frames\\test_0\\000.png",
    "slashes": "UADFV/UADFV_Real/frames/test_0/000.png",
    "dot_datasets_backslash": ".\\datasets\\UADFV\\UADFV_Real\\frames\\test_0\\000.png".replace(
        ".\\", "./", 1
    ),
    "dot_datasets_slash": "./datasets/UADFV/UADFV_Real/frames/test_0/000.png",
    "dot_datasets_rgb": "./datasets/rgb/UADFV/UADFV_Real/frames/test_0/000.png",
    "datasets_rgb": "datasets/rgb/UADFV/UADFV_Real/frames/test_0/000.png",
    "drive": "D:\\bench\\datasets\\rgb\\UADFV\\UADFV_Real\\frames\\test_0\\000.png",
    "drive_mixed": "D:\\bench/datasets/rgb/UADFV/UADFV_Real/frames/test_0/000.png",
    "another_machine": "/another/machine/DeepfakeBench/datasets/rgb/UADFV/UADFV_Real/frames/test_0/000.png",
    "parent": "..\\datasets\\UADFV\\UADFV_Real\\frames\\test_0\\000.png",
}
STORED = {
    "backslashes": LISTED["backslashes"],
    "slashes": LISTED["slashes"],
    "first_backslash": LISTED["slashes"].replace("/", "\\", 1),
}


def listed_as(form: str, frames: int = 4) -> Video:
    paths = tuple(LISTED[form].replace("000", f"{number:03d}") for number in range(frames))
    return Video("UADFV", "UADFV_Real", "UADFV_Real", None, "0", "test", paths)


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("form", LISTED)
def test_lmdb_is_read_under_any_spelling(embedded: Bench, form: str, stored: str) -> None:
    keys = dict(
        zip(
            listed_as(form).frames, (STORED[stored].replace("000", f"{n:03d}") for n in range(4)), strict=True
        )
    )
    embedded.write([listed_as(form)], key=keys.__getitem__)
    dataset = open_frames(embedded.host, embedded.settings(), split="test", names=["UADFV"])
    assert not any(isinstance(dataset[index], Missing) for index in range(4))


@pytest.mark.parametrize("form", LISTED)
def test_files_are_read_under_any_spelling(embedded: Bench, form: str) -> None:
    images = embedded.write([listed_as(form)])
    embedded.write_files(dict(zip(listed_as("backslashes").frames, images.values(), strict=True)))
    settings = embedded.settings(lmdb=False)
    dataset = open_frames(embedded.host, settings, split="test", names=["UADFV"])
    assert not any(isinstance(dataset[index], Missing) for index in range(4))
    assert dataset.protocol["source"] == "files"


def test_a_real_host_too_lists_mixed_separators(bench: Bench) -> None:
    mixed = [path.replace("\\frames\\", "\\frames/") for path in listed_as("backslashes").frames]
    frames = (mixed[0].replace("test_0\\", "test_0/"), *mixed[1:3], listed_as("slashes").frames[3])
    bench.write([replace(listed_as("slashes"), frames=frames)])
    bench.write_files(dict.fromkeys(listed_as("slashes").frames, b""))
    dataset = open_frames(bench.host, bench.settings(lmdb=False), split="test", names=["UADFV"])
    assert tuple(row.path for row in dataset.rows) == frames


def test_what_is_no_file_is_absent_and_what_cannot_be_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "there.png").write_bytes(b"bytes")
    source = FileSource(str(tmp_path))
    for name in ("folder.png", "loop.png", f"{'long' * 99}.png", "there.png/000.png"):
        assert source.read(name) is None
        assert source.present([name]) == [False]

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "disk")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(OSError, match="disk"):
        source.read("there.png")


def test_a_cut_off_lmdb_is_refused_and_does_not_kill_the_process(embedded: Bench) -> None:
    embedded.write([video("UADFV_Real", "0", frames=40)])
    data = embedded.root / "lmdb" / "UADFV_lmdb" / "data.mdb"
    os.truncate(data, data.stat().st_size // 2)
    program = (
        "import sys; from effort_finetune.data import lmdb_pool;"
        "print(*lmdb_pool.keys_present(sys.argv[1], [key.encode() for key in sys.argv[2:]]))"
    )
    keys = video("UADFV_Real", "0", frames=40).frames
    done = subprocess.run(
        [sys.executable, "-c", program, str(data.parent), *keys], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, f"killed by signal {-done.returncode}"
    assert "UADFV_lmdb is cut off" in done.stderr


def test_files_listed_by_absolute_paths(embedded: Bench, tmp_path: Path) -> None:
    relative = video("UADFV_Real", "0", separator="/")
    absolute = Video(
        "UADFV",
        "UADFV_Real",
        "UADFV_Real",
        None,
        "0",
        "test",
        tuple(f"{tmp_path}/rgb/datasets/{p}" for p in relative.frames),
    )
    images = embedded.write([absolute])
    embedded.write_files(
        {f"datasets/{p}": image for p, image in zip(relative.frames, images.values(), strict=True)}
    )
    embedded.write_files(dict.fromkeys(relative.frames, b"another file, where rgb_dir has the same dataset"))
    dataset = open_frames(embedded.host, embedded.settings(lmdb=False), split="test", names=["UADFV"])
    assert not isinstance(dataset[0], Missing)
    assert not any("LMDB" in fix for fix in dataset.protocol["fixes"]), "what was not done is not claimed"


def test_lmdb_and_files_give_the_same_pixels(embedded: Bench) -> None:
    images = embedded.write([video("UADFV_Real", "0")])
    embedded.write_files(images)
    first, second = (
        open_frames(embedded.host, embedded.settings(lmdb=lmdb), split="test", names=["UADFV"])
        for lmdb in (True, False)
    )
    for index in range(len(first)):
        assert first[index]["image"].equal(second[index]["image"])


def test_a_few_gaps_do_not_change_the_rule(embedded: Bench) -> None:
    item = video("UADFV_Real", "0", frames=8)
    embedded.write([item], leave_out=item.frames[:3])
    settings = embedded.settings(frame_num={"train": 8, "test": 8})
    dataset = open_frames(embedded.host, settings, split="test", names=["UADFV"])
    assert dataset.protocol["datasets"]["UADFV"]["path_rule"] == "host"
    assert sum(isinstance(dataset[index], Missing) for index in range(8)) == 3


@pytest.mark.parametrize("lmdb", [True, False])
@pytest.mark.parametrize(
    "prefix", ["/home/u/UADFV/faces/", "../input/", "E:\\faces\\", "E:/faces/", "C:\\datasets\\x\\"]
)
def test_paths_of_another_machine_are_cut_to_the_datasets_own_folder(
    embedded: Bench, prefix: str, lmdb: bool
) -> None:
    item = video("UADFV_Real", "0", separator="\\" if "\\" in prefix else "/")
    images = embedded.write([item])
    index = embedded.root / "json" / "UADFV.json"
    content = json.loads(index.read_text())
    content["UADFV"]["UADFV_Real"]["test"]["0"]["frames"] = [prefix + path for path in item.frames]
    index.write_text(json.dumps(content))
    embedded.write_files(images)
    dataset = open_frames(embedded.host, embedded.settings(lmdb=lmdb), split="test", names=["UADFV"])
    assert dataset.rows[0].path == prefix + item.frames[0]
    assert not any(isinstance(dataset[index], Missing) for index in range(len(dataset)))
    assert dataset.protocol["datasets"]["UADFV"]["path_rule"].startswith("own_part")
