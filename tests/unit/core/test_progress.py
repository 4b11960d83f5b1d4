"""Progress on a terminal."""

from __future__ import annotations

import io
import time

from effort_finetune.core.progress import bar, track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_clock_that_is_set_back_stops_no_bar(monkeypatch):
    terminal, clock = Terminal(), iter(range(10**9, 0, -3600))
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr("tqdm.std.time", lambda: float(next(clock)))
    for _ in track(range(3), desc="frames"):
        time.sleep(0.11)  # tqdm draws ten times a second
    assert "2/3" in terminal.getvalue()
    assert "-" not in terminal.getvalue(), "no time is negative"


def test_a_bar_counts_by_hand_too(monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal())
    with bar(total=4, desc="frames", mininterval=0) as shown:
        shown.update(3)
        assert "3/4" in shown.fp.getvalue()


def test_nothing_is_drawn_elsewhere(capsys):
    assert list(track([1, 2], desc="frames")) == [1, 2]
    assert capsys.readouterr().err == ""
