"""A crash, a hang and a broken pipe of the process that reads files: each one file's own record."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from effort_finetune.core.errors import RunFailure
from effort_finetune.core.processes import is_alive
from effort_finetune.predict import cutting_process
from effort_finetune.predict.chosen_faces import ChosenFaces
from effort_finetune.predict.cutting_process import CuttingProcess
from effort_finetune.predict.file_crops import Cutter
from effort_finetune.predict.prediction import load_predictor

#: Imported by every Python whose path holds it: a decoder that does what its file says.
PLANTED = """
import os, signal, time
import cv2

decode = cv2.imdecode

def imdecode(data, *more):
    held = bytes(data)
    if held.endswith(b"abort"):
        os.abort()
    if held.endswith(b"segfault"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if held.endswith(b"killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    if held.endswith(b"slow"):
        time.sleep(600)
    if held.endswith(b"print"):
        os.write(1, b"a decoder's words")
    return decode(data, *more)

cv2.imdecode = imdecode
"""
WHOLE = Cutter(ChosenFaces(None, 256, 1.3, "crop", "a test"), 32, 4)


@pytest.fixture
def planted(tmp_path, monkeypatch) -> None:
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted" / "sitecustomize.py").write_text(PLANTED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "planted"))


@pytest.fixture
def files(pictures, tmp_path) -> list[str]:
    """Good ones about those that end, or disturb, the process that reads them."""
    good = (pictures / "real" / "real0.png").read_bytes()
    made = []
    for number, tail in enumerate((b"", b"abort", b"", b"segfault", b"killed", b"print", b"")):
        made.append(tmp_path / f"{number}{tail.decode()}.png")
        made[-1].write_bytes(good + tail)
    return list(map(str, made))


def test_a_decoder_that_crashes_harms_its_own_record_alone(planted, files, weights, settings):
    predictor = load_predictor(weights, settings, faces="whole")
    records = list(predictor.records(files))
    assert [record.file for record in records] == files
    assert [record.status for record in records] == [
        "scored", "unreadable", "scored", "unreadable", "unreadable", "scored", "scored",
    ]  # fmt: skip
    assert len({record.score for record in records if record.status == "scored"}) == 1
    assert [record.reasons[0] for record in records if record.status == "unreadable"] == [
        "unreadable: its decoder crashed (SIGABRT)",
        "unreadable: its decoder crashed (SIGSEGV)",
        "unreadable: its reader was killed, perhaps for want of memory",
    ]
    assert all(record.sha256 for record in records)


def test_a_decoder_that_hangs_is_ended(planted, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(cutting_process, "PATIENCE", 0.5)
    slow, good = tmp_path / "slow.png", pictures / "real" / "real0.png"
    slow.write_bytes(good.read_bytes() + b"slow")
    shorter = (
        "import effort_finetune.predict.cutting_worker as worker\nworker.PATIENCE = 0.5\nworker.main()\n"
    )
    (tmp_path / "planted" / "impatient_worker.py").write_text(shorter)
    monkeypatch.setattr(cutting_process, "WORKER", "impatient_worker")
    first, second = CuttingProcess().cut(WHOLE, [str(slow), str(good)])
    assert first.error is not None
    assert first.error.startswith("its decoder gave no frame")
    assert len(second.cuts) == 1


def test_what_nobody_takes_any_more_is_not_given_to_the_next(pictures):
    reader = CuttingProcess()
    one, other = (str(pictures / "real" / f"real{number}.png") for number in (0, 1))
    asked = reader.cut(WHOLE, [one, other, one])
    next(asked)
    asked.close()
    (found,) = reader.cut(WHOLE, [other])
    assert found.file == other


def test_it_ends_with_its_owner_even_in_the_middle_of_a_file(planted, pictures, tmp_path):
    slow = tmp_path / "slow.png"
    slow.write_bytes((pictures / "real" / "real0.png").read_bytes() + b"slow")
    script = tmp_path / "no_main_guard.py"
    script.write_text(
        "from effort_finetune.predict.chosen_faces import ChosenFaces\n"
        "from effort_finetune.predict.cutting_process import CuttingProcess\n"
        "from effort_finetune.predict.file_crops import Cutter\n"
        "reader = CuttingProcess()\n"
        "reader._start()\n"
        "print(reader._running.pid, flush=True)\n"
        f"list(reader.cut(Cutter(ChosenFaces(None, 256, 1.3, 'crop', ''), 32, 4), [{str(slow)!r}]))\n"
    )
    owner = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    reader = int(owner.stdout.readline())
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    deadline = time.monotonic() + 30
    while is_alive(reader) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(reader)


def test_one_that_cannot_start_is_a_failure_and_no_records(monkeypatch, pictures):
    monkeypatch.setattr(cutting_process, "WORKER", "effort_finetune.no_such_module")
    with pytest.raises(RunFailure, match="before it began .exit code 1.; next: python.* -m effort_finetune"):
        list(CuttingProcess().cut(WHOLE, [str(pictures / "real" / "real0.png")]))


def test_a_request_that_cannot_be_read_ends_it_with_a_word(pictures):
    files = [str(pictures / "real" / "real0.png")]
    (found,) = CuttingProcess().cut(WHOLE, files, shown=_of_this_module)
    assert found.error == "its reader ended (exit code 1)"


def _of_this_module(number: int, image: np.ndarray) -> None:
    raise AssertionError("the process that reads files does not know this module")
