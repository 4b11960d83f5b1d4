"""The page as a process of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def command(*arguments: str) -> list[str]:
    """What starts it."""
    return [sys.executable, "-m", "effort_finetune", "serve", *arguments]


@contextmanager
def served(folder: Path, weights: Path, *more: str, port: int = 0) -> Iterator[tuple[subprocess.Popen, str]]:
    """Starts a server and gives it with its address; kills it at the end if it still runs."""
    asked = {"weights": weights, "folder": folder, "port": port, "faces": "whole", "device": "cpu"}
    words = [word for flag, value in asked.items() for word in (f"--{flag}", str(value))]
    server = subprocess.Popen(
        command(*words, *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        line = server.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert found, line + server.stderr.read()
        yield server, found[0]
    finally:
        if server.poll() is None:
            server.kill()
            server.communicate()


def ask(address: str, path: str) -> Any:
    """Returns what it answers."""
    with urllib.request.urlopen(address + path, timeout=30) as answer:
        return json.loads(answer.read())
