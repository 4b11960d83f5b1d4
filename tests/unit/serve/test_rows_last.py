"""What survives the end of a server, what is asked for again, what is removed."""

from __future__ import annotations

import sqlite3

import pytest

from effort_finetune.core.errors import UserError
from effort_finetune.serve.row_store import AGAIN, NAME, WHILE_READ


def _state(visitor, since=0):
    return visitor.client.get(f"/state?since={since}").json()


def test_finished_rows_survive_and_unfinished_ones_are_asked_for_again(visit, pictures, tmp_path):
    content = pictures[0].read_bytes()
    with visit() as before:
        (done,) = before.drop({"done.png": content})
        before.wait([done])
    with visit(judge=False) as stopped:
        (arrived,) = stopped.drop({"arrived.png": content})
        (read,) = stopped.drop({"read.png": content})
        stopped.page.store.change(read, state="scoring")
        (expected,) = stopped.announce({"expected.png": content})
    assert not (tmp_path / "page" / "incoming").exists()
    with visit() as after:
        rows = {row["id"]: row for row in _state(after)["rows"]}
        assert rows[done]["state"] == "done"
        assert not rows[done]["kept"]
        assert after.client.get(f"/rows/{done}/pictures/preview.jpg").status_code == 200
        assert {number: rows[number]["note"] for number in (arrived, read, expected)} == {
            arrived: AGAIN, read: WHILE_READ, expected: AGAIN,
        }  # fmt: skip
        assert {rows[number]["state"] for number in (arrived, read, expected)} == {"expected"}
        # Dropped again, a file takes its old row; a new one gets a new row.
        again = after.drop({"expected.png": content, "arrived.png": content, "new.png": content})
        assert again[:2] == [expected, arrived]
        assert again[2] > expected
        assert {row["state"] for row in after.wait(again)} == {"done"}
        assert after.client.delete(f"/rows/{read}").status_code == 204
        assert after.client.get(f"/rows/{read}").status_code == 404


def test_only_what_changed_is_told(visitor, pictures):
    first = visitor.drop({"a.png": pictures[0].read_bytes()})
    visitor.wait(first)
    revision = _state(visitor)["revision"]
    assert _state(visitor, revision)["rows"] == []
    second = visitor.announce({"b.png": b"12"})
    assert [row["id"] for row in _state(visitor, revision)["rows"]] == second


def test_a_batch_is_removed_with_its_files(visit, pictures, tmp_path):
    with visit() as visitor:
        rows = visitor.drop({"a.png": pictures[0].read_bytes()})
        (row,) = visitor.wait(rows)
        kept = tmp_path / "page" / "incoming" / f"{row['id']}.png"
        shown = tmp_path / "page" / "pictures" / str(row["id"])
        assert kept.exists()
        assert shown.exists()
        assert visitor.client.delete(f"/batches/{row['batch']}").status_code == 204
        assert not kept.exists()
        assert not shown.exists()
        assert _state(visitor)["batches"] == []


def test_a_killed_server_leaves_whole_rows(visit, pictures, tmp_path):
    """The file of rows as it lies there in the middle of the work, copied, is what a killed server leaves."""
    with visit() as visitor:
        rows = visitor.drop({file.name: file.read_bytes() for file in pictures})
        visitor.wait(rows[:2])
        copy = tmp_path / "killed"
        copy.mkdir()
        for file in (tmp_path / "page").glob(f"{NAME}*"):
            (copy / file.name).write_bytes(file.read_bytes())
    with visit(copy) as after:
        states = [row["state"] for row in _state(after)["rows"]]
        assert len(states) == len(pictures)
        assert states[:2] == ["done", "done"]
        assert set(states) <= {"done", "expected"}


def test_a_file_of_rows_that_cannot_be_read_is_named(visit, tmp_path):
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / NAME).write_bytes(b"no database" * 100)
    with pytest.raises(UserError, match=r"page\.sqlite3.*not a database"), visit():
        pass
    (folder / NAME).unlink()
    with sqlite3.connect(folder / NAME) as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(UserError, match="rows of version 99"), visit():
        pass
