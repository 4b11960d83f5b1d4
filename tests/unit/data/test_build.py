import json
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from effort_finetune.core.errors import UserError
from effort_finetune.data import lmdb_pool
from effort_finetune.data import write_dataset as build
from effort_finetune.data.write_dataset import write_index, write_lmdb

from .conftest import pair_of_groups, video


def contents(path: Path) -> dict[str, bytes]:
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return {bytes(key).decode(): bytes(value) for key, value in transaction.cursor()}


def test_writes_what_it_was_given_and_nothing_beside_it(tmp_path: Path) -> None:
    items = {f"A\\{n:03d}.png": bytes([n]) * n for n in range(1, 50)}
    assert write_lmdb(tmp_path / "A_lmdb", items.items()) == 49
    assert contents(tmp_path / "A_lmdb") == items
    assert [path.name for path in tmp_path.iterdir()] == ["A_lmdb"]


def test_the_map_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "FIRST_MAP_SIZE", 1 << 16)
    monkeypatch.setattr(build, "PUTS_PER_TRANSACTION", 7)
    items = {f"{n:04d}": bytes(5000) for n in range(100)}
    write_lmdb(tmp_path / "A_lmdb", items.items())
    assert contents(tmp_path / "A_lmdb") == items


def test_same_items_same_bytes(tmp_path: Path) -> None:
    items = [(f"{n:04d}", bytes([n])) for n in range(100)]
    for name in ("A_lmdb", "B_lmdb"):
        write_lmdb(tmp_path / name, items)
    assert (tmp_path / "A_lmdb/data.mdb").read_bytes() == (tmp_path / "B_lmdb/data.mdb").read_bytes()


def test_an_old_lmdb_is_replaced_whole_or_kept(tmp_path: Path) -> None:
    path = tmp_path / "A_lmdb"
    write_lmdb(path, [("old", b"1")])

    def interrupted() -> object:
        yield "new", b"2"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_lmdb(path, interrupted())  # type: ignore[arg-type]
    assert contents(path) == {"old": b"1"}
    write_lmdb(path, [("new", b"2")])
    assert contents(path) == {"new": b"2"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["A_lmdb"]


def test_a_full_disk_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lmdb(tmp_path / "A_lmdb", [("old", b"1")])

    def refuse(*_: object) -> bool:
        raise lmdb.Error("mdb_txn_commit: Input/output error")

    monkeypatch.setattr(build, "_put", refuse)
    with pytest.raises(OSError, match=r"A_lmdb cannot be written .*Input/output error.* MB free"):
        write_lmdb(tmp_path / "A_lmdb", [("new", b"2")])
    assert contents(tmp_path / "A_lmdb") == {"old": b"1"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["A_lmdb"]


def test_what_a_killed_build_left_is_cleared_away(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from effort_finetune.data.write_dataset import *\n"
        "def items():\n yield 'a', b'1'\n os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_lmdb(Path(sys.argv[1]), items())"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "A_lmdb")], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    write_lmdb(tmp_path / "A_lmdb", [("a", b"1")])
    assert [path.name for path in tmp_path.iterdir()] == ["A_lmdb"]


def test_an_lmdb_is_replaced_file_by_file_and_never_absent(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "A_lmdb"
    write_lmdb(path, [("a", b"1")])
    (path / "lock.mdb").write_bytes(b"of a host")
    folder = path.stat().st_ino
    write_lmdb(path, [("b", b"2")])
    assert path.stat().st_ino == folder
    assert [p.name for p in path.iterdir()] == ["data.mdb"]
    assert lmdb_pool.first_keys(str(path), 5) == [b"b"]


def test_a_key_twice_and_a_folder_in_the_way_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="comes twice"):
        write_lmdb(tmp_path / "A_lmdb", [("a", b"1"), ("a", b"2")])
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    with pytest.raises(UserError, match="in the way"):
        write_lmdb(tmp_path / "thesis", [])
    assert (tmp_path / "thesis" / "chapter.tex").exists()


def test_every_group_of_an_index_has_every_split_and_level(tmp_path: Path) -> None:
    videos = [
        video("FF-DF", "1", "train", compression="c23"),
        video("FF-real", "1", "test", compression="c40"),
    ]
    groups = json.loads(write_index(tmp_path, "FF-DF", videos).read_text())["FF-DF"]
    assert {
        group: {split: sorted(levels) for split, levels in splits.items()} for group, splits in groups.items()
    } == {
        "FF-DF": {"train": ["c23"], "val": ["c23"], "test": ["c23"]},
        "FF-real": {"train": ["c40"], "val": ["c40"], "test": ["c40"]},
    }
    assert groups["FF-DF"]["train"]["c23"]["1"] == {"label": "FF-DF", "frames": list(videos[0].frames)}


def test_one_name_twice_in_a_group_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="comes twice in split 'train'"):
        write_index(tmp_path, "A", [*pair_of_groups(), video("UADFV_Real", "0000", "train")])
