"""Several files put in place together, or none."""

from __future__ import annotations

import threading

import pytest

from effort_finetune.core.errors import UserError
from effort_finetune.core.locks import hold
from effort_finetune.core.whole_folder import whole_folder


def _fill(folder, text, *, stop=False):
    with whole_folder(folder) as made:
        (made / "a").write_text(text)
        if stop:
            raise OSError("full")
        (made / "b").write_text(text)


def test_a_new_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(OSError, match="full"):
        _fill(tmp_path / "out", "1", stop=True)
    assert list(tmp_path.iterdir()) == []
    _fill(tmp_path / "out", "1")
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {"a": "1", "b": "1"}
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert len(list(tmp_path.iterdir())) == 2


def test_an_old_folder_stays_as_it_was_and_keeps_what_is_not_ours(tmp_path):
    out = tmp_path / "out"
    _fill(out, "1")
    (out / "mine.txt").write_text("mine")
    with pytest.raises(OSError, match="full"):
        _fill(out, "2", stop=True)
    assert (out / "a").read_text() == "1"
    _fill(out, "2")
    assert {path.name: path.read_text() for path in out.iterdir()} == {"a": "2", "b": "2", "mine.txt": "mine"}


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    entered, leave = threading.Event(), threading.Event()

    def work():
        with hold(tmp_path / "out"):
            entered.set()
            leave.wait(60)

    other = threading.Thread(target=work)
    other.start()
    try:
        assert entered.wait(60)
        with pytest.raises(UserError, match="is in use"):
            _fill(tmp_path / "out", "1")
    finally:
        leave.set()
        other.join()
    assert list((tmp_path / "out").iterdir()) == []
