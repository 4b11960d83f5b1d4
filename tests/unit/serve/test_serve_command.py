"""``effort-finetune serve`` as a process: wrong flags at once, a clean end, what a kill leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

pytest.importorskip("fastapi", reason="the extra `web` is not installed")
from effort_finetune.cli.main import main
from effort_finetune.serve import serve_command
from effort_finetune.serve.row_store import AGAIN, RowStore
from tests.unit.serve.served import ask, command, served


def test_what_a_killed_server_left_is_asked_for_again_and_a_signal_ends_cleanly(tmp_path, weights):
    folder = tmp_path / "page"
    (folder / "incoming").mkdir(parents=True)
    store = RowStore(folder)
    (missing,) = store.add([("holiday.png", 5)], stability=False, about={})
    store.arrived(missing)
    store.close()
    (folder / "incoming" / f"{missing}.png").write_bytes(b"12345")
    with served(folder, weights) as (server, address):
        assert not list((folder / "incoming").iterdir())
        (row,) = ask(address, "state")["rows"]
        assert (row["id"], row["state"], row["note"]) == (missing, "expected", AGAIN)
        second = subprocess.run(
            command("--weights", str(weights), "--folder", str(folder), "--port", "0"),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (second.returncode, len(second.stderr.splitlines())) == (2, 1)
        assert "is in use" in second.stderr
        server.send_signal(signal.SIGTERM)
        _, told = server.communicate(timeout=60)
    assert server.returncode == 0
    assert "1 file was not finished: the page names what to drop again" in told
    assert "SIGTERM: the page has ended" in told
    assert not (folder / "incoming").exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--weights", "/nowhere.pth"], "no such file"),
        (["--port", "99999"], "--port"),
        (["--threshold", "2"], "--threshold"),
        (["--token", "short"], "--token"),
        (["--max_file_mb", "0"], "--max_file_mb"),
        (["--max_file_mb", "9", "--max_kept_mb", "8"], "--max_file_mb"),
        (["--batch", "0"], "test_batchSize"),
    ],
)
def test_a_wrong_flag_is_one_line_before_torch(wrong, said, tmp_path, weights, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # torch that cannot be imported: an error that needed it would be another one
    monkeypatch.setitem(sys.modules, "effort_finetune.predict.prediction", None)
    assert main(["serve", "--weights", str(weights), *wrong]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert said in lines[-1]
    assert len([line for line in lines if line.startswith("error")]) == 1
    assert os.listdir(tmp_path) in ([], ["effort_page"])


def test_without_the_extra_it_says_how_to_get_it(monkeypatch, capsys, weights):

    monkeypatch.setattr(serve_command, "find_spec", lambda name: None)
    assert main(["serve", "--weights", str(weights)]) == 2
    assert "pip install 'effort-finetune[web]'" in capsys.readouterr().err
