"""``effort-finetune serve`` as a process: wrong flags at once, a clean end, what a kill leaves."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra `web` is not installed")


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "effort_finetune", "serve", *arguments]


@contextmanager
def _served(folder: Path, weights: Path):
    """Starts a server and gives it with its address; kills it at the end if it still runs."""
    asked = {"weights": weights, "folder": folder, "port": 0, "faces": "whole", "device": "cpu"}
    command = _command(*(word for flag, value in asked.items() for word in (f"--{flag}", str(value))))
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert found, line + server.stderr.read()
        yield server, found[0]
    finally:
        if server.poll() is None:
            server.kill()
        server.communicate()


def _ask(address: str, path: str, method: str = "GET", body: bytes | None = None) -> object:
    request = urllib.request.Request(address + path, data=body, method=method)
    if method == "POST":
        request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as answer:
        said = answer.read()
    return json.loads(said) if said else None


def test_a_kill_keeps_what_is_finished_and_a_signal_ends_cleanly(tmp_path, weights, pictures):
    folder, content = tmp_path / "page", pictures[0].read_bytes()
    listed = json.dumps({"files": [{"name": n, "size": len(content)} for n in ("done.png", "not.png")]})
    with _served(folder, weights) as (server, address):
        done, missing = _ask(address, "batches", "POST", listed.encode())["rows"]
        _ask(address, f"rows/{done}/file", "PUT", content)
        deadline = time.monotonic() + 60
        while _ask(address, f"rows/{done}")["state"] != "done":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        server.kill()
    assert list((folder / "incoming").iterdir())
    with _served(folder, weights) as (server, address):
        assert not list((folder / "incoming").iterdir())
        rows = {row["id"]: row for row in _ask(address, "state")["rows"]}
        assert (rows[done]["state"], rows[missing]["state"]) == ("done", "expected")
        second = subprocess.run(
            _command("--weights", str(weights), "--folder", str(folder), "--port", "0"),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (second.returncode, len(second.stderr.splitlines())) == (2, 1)
        assert "is in use" in second.stderr
        server.send_signal(signal.SIGTERM)
        _, told = server.communicate(timeout=60)
    assert server.returncode == 0
    assert "1 files were not finished: the page names them" in told
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
    from effort_finetune.cli.main import main

    monkeypatch.chdir(tmp_path)
    # torch that cannot be imported: an error that needed it would be another one
    monkeypatch.setitem(sys.modules, "effort_finetune.predict.prediction", None)
    assert main(["serve", "--weights", str(weights), *wrong]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert said in lines[-1]
    assert len([line for line in lines if line.startswith("error")]) == 1
    assert os.listdir(tmp_path) in ([], ["effort_page"])


def test_without_the_extra_it_says_how_to_get_it(monkeypatch, capsys, weights):
    from effort_finetune.cli.main import main
    from effort_finetune.serve import serve_command

    monkeypatch.setattr(serve_command, "find_spec", lambda name: None)
    assert main(["serve", "--weights", str(weights)]) == 2
    assert "pip install 'effort-finetune[web]'" in capsys.readouterr().err
