"""The rows of the page on disk: what is finished survives whatever ends the server."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from effort_finetune.core.errors import UserError
from effort_finetune.core.escaping import visible
from effort_finetune.predict.file_records import FileRecord
from effort_finetune.serve.page_row import UNFINISHED, Batch, Label, Row, RowPictures, State

NAME = "page.sqlite3"
#: Raised when the columns change; an older file is refused by name, not read wrongly.
VERSION = 1
AGAIN = "the server ended before it was judged: drop the file again"
WHILE_READ = "the server ended while it was being read: drop the file again, or leave it out"
_TABLES = """
CREATE TABLE IF NOT EXISTS batches (
  id INTEGER PRIMARY KEY AUTOINCREMENT, started TEXT NOT NULL, stability INTEGER NOT NULL, about TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS rows (
  id INTEGER PRIMARY KEY AUTOINCREMENT, batch INTEGER NOT NULL REFERENCES batches(id) ON DELETE CASCADE,
  name TEXT NOT NULL, size INTEGER NOT NULL, state TEXT NOT NULL, note TEXT, record TEXT, label TEXT,
  pictures TEXT NOT NULL, seconds REAL, kept INTEGER NOT NULL, revision INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS rows_by_batch ON rows(batch);
CREATE INDEX IF NOT EXISTS rows_by_state ON rows(state, id);
CREATE INDEX IF NOT EXISTS rows_by_revision ON rows(revision);
"""
_RECORD = TypeAdapter(FileRecord)
_PICTURES = TypeAdapter(RowPictures)
_COLUMNS = "id, batch, name, size, state, note, record, label, pictures, seconds, kept, revision"


class RowStore:
    """Batches and rows in one SQLite file; may be used from several threads.

    The folder must be locked by the caller: the file is opened for this process alone.

    Args:
        folder: Where the file lies.

    Raises:
        UserError: If the file is damaged, of another version, or cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._guard = threading.Lock()
        path = folder / NAME
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._prepare(path)
        except sqlite3.Error as error:
            raise UserError(
                f"page {visible(path)}",
                got=str(error),
                expected="a file of rows that can be read and written",
                next_step="choose another --folder, or remove this file",
            ) from error

    def _prepare(self, path: Path) -> None:
        for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            self._db.execute(f"PRAGMA {pragma}")
        (found,) = self._db.execute("PRAGMA user_version").fetchone()
        if found not in (0, VERSION):
            raise UserError(
                f"page {visible(path)}",
                got=f"rows of version {found}",
                expected=f"version {VERSION}",
                next_step="choose another --folder",
            )
        self._db.executescript(_TABLES)
        self._db.execute(f"PRAGMA user_version={VERSION}")
        (last,) = self._db.execute("SELECT max(revision) FROM rows").fetchone()
        self.revision: int = last or 0
        self._reopen()

    def close(self) -> None:
        """Closes the file; the store is not used after that."""
        with self._guard:
            self._db.close()

    def add(self, files: Sequence[tuple[str, int]], *, stability: bool, about: dict[str, Any]) -> list[int]:
        """Makes rows for files that are about to be sent; one that never arrived keeps its row.

        Args:
            files: Name and size of each.
            stability: See :class:`Batch`.
            about: See :class:`Batch`.

        Returns:
            The number of each file's row.
        """
        with self._writing() as db:
            asked: dict[tuple[str, int], list[int]] = {}
            for row, name, size in db.execute(
                "SELECT id, name, size FROM rows WHERE state='expected' ORDER BY id DESC"
            ):
                asked.setdefault((name, size), []).append(row)
            ids = [
                asked[key].pop() if asked.get(key) else None
                for key in ((visible(name, limit=1000), size) for name, size in files)
            ]
            if None in ids:
                now = datetime.now().astimezone().isoformat(timespec="seconds")
                batch = db.execute(
                    "INSERT INTO batches (started, stability, about) VALUES (?, ?, ?)",
                    (now, int(stability), json.dumps(about)),
                ).lastrowid
            return [
                self._insert(db, batch, name, size) if found is None else found
                for found, (name, size) in zip(ids, files, strict=True)
            ]

    def change(self, row: int, **values: Any) -> None:
        """Sets columns of a row; ``record`` and ``pictures`` as objects."""
        if values.get("record") is not None:
            values["record"] = json.dumps(values["record"].to_dict(), allow_nan=False)
        if "pictures" in values:
            values["pictures"] = json.dumps(asdict(values["pictures"]))
        with self._writing() as db:
            names = ", ".join(f"{name}=?" for name in values)
            db.execute(
                f"UPDATE rows SET {names}, revision=? WHERE id=?", (*values.values(), self.revision, row)
            )

    def arrived(self, row: int) -> None:
        """The bytes of a file are here."""
        self.change(row, state="waiting", note=None, kept=1)

    def give_back(self) -> None:
        """Rows that were being judged wait again."""
        if self.count("scoring"):
            with self._writing() as db:
                db.execute(
                    "UPDATE rows SET state='waiting', revision=? WHERE state='scoring'", (self.revision,)
                )

    def finish(self, row: int, record: FileRecord, pictures: RowPictures, seconds: float) -> None:
        """A file has its record."""
        self.change(row, state="done", note=None, record=record, pictures=pictures, seconds=seconds)

    def correct(self, row: int, label: Label | None) -> None:
        """A person says what the file is, or takes it back."""
        self.change(row, label=label)

    def take(self, *, stability: bool | None = None) -> Row | None:
        """Returns the next file to be judged and marks it so; None where there is none of that kind."""
        with self._writing() as db:
            found = db.execute(
                f"SELECT {', '.join(f'rows.{c}' for c in _COLUMNS.split(', '))} FROM rows"
                " JOIN batches ON batches.id = rows.batch WHERE state='waiting'"
                " AND (? IS NULL OR stability=?) ORDER BY rows.id LIMIT 1",
                (stability, stability),
            ).fetchone()
            if found is None:
                return None
            db.execute("UPDATE rows SET state='scoring', revision=? WHERE id=?", (self.revision, found[0]))
        return _row(found)

    def row(self, number: int) -> Row | None:
        """Returns a row; None where it was removed."""
        rows = self._rows("WHERE id=?", number)
        return rows[0] if rows else None

    def rows(self, *, since: int = 0, batch: int | None = None, state: State | None = None) -> list[Row]:
        """Returns the rows that changed after a revision, in order."""
        return self._rows(
            "WHERE revision > ? AND (? IS NULL OR batch=?) AND (? IS NULL OR state=?) ORDER BY id",
            since, batch, batch, state, state,
        )  # fmt: skip

    def batch(self, number: int) -> Batch | None:
        """Returns a batch; None where it was removed."""
        return next((batch for batch in self.batches() if batch.id == number), None)

    def batches(self) -> list[Batch]:
        """Returns all batches that have rows, the newest first."""
        with self._guard:
            found = self._db.execute("SELECT id, started, stability, about FROM batches ORDER BY id DESC")
            return [Batch(i, started, bool(s), json.loads(about)) for i, started, s, about in found]

    def batches_with_counts(self) -> list[tuple[Batch, int]]:
        """Returns all batches, the newest first, each with the number of its rows."""
        with self._guard:
            counts = dict(self._db.execute("SELECT batch, count(*) FROM rows GROUP BY batch"))
        return [(batch, counts.get(batch.id, 0)) for batch in self.batches()]

    def count(self, *states: State) -> int:
        """Returns how many rows are in one of the states; all rows without any."""
        marks = ", ".join("?" * len(states))
        where = f" WHERE state IN ({marks})" if states else ""
        with self._guard:
            return int(self._db.execute(f"SELECT count(*) FROM rows{where}", states).fetchone()[0])

    def remove(self, batch: int) -> list[int]:
        """Removes a batch; returns the numbers of its rows."""
        with self._writing() as db:
            rows = [row for (row,) in db.execute("SELECT id FROM rows WHERE batch=?", (batch,))]
            db.execute("DELETE FROM batches WHERE id=?", (batch,))
        return rows

    def remove_row(self, row: int) -> None:
        """Removes a row, and its batch where it was the last one."""
        with self._writing() as db:
            db.execute("DELETE FROM rows WHERE id=?", (row,))
            db.execute("DELETE FROM batches WHERE id NOT IN (SELECT batch FROM rows)")

    def _rows(self, where: str, *values: object) -> list[Row]:
        with self._guard:
            return [_row(row) for row in self._db.execute(f"SELECT {_COLUMNS} FROM rows {where}", values)]

    def _insert(self, db: sqlite3.Connection, batch: int | None, name: str, size: int) -> int:
        made = db.execute(
            "INSERT INTO rows (batch, name, size, state, pictures, kept, revision)"
            " VALUES (?, ?, ?, 'expected', '{}', 0, ?)",
            (batch, visible(name, limit=1000), size, self.revision),
        )
        return int(made.lastrowid or 0)

    def _reopen(self) -> None:
        """After a start no bytes are here: what was not finished is asked for again."""
        with self._writing() as db:
            db.execute(
                "UPDATE rows SET note=CASE state WHEN 'scoring' THEN ? ELSE ? END, state='expected',"
                f" revision=? WHERE state IN {UNFINISHED}",
                (WHILE_READ, AGAIN, self.revision),
            )
            db.execute("UPDATE rows SET kept=0")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._guard:
            self.revision += 1
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")


def _row(columns: tuple[Any, ...]) -> Row:
    i, batch, name, size, state, note, record, label, pictures, seconds, kept, revision = columns
    said = None if record is None else _RECORD.validate_json(record)
    shown = _PICTURES.validate_json(pictures)
    return Row(i, batch, name, size, state, note, said, label, shown, seconds, bool(kept), revision)
