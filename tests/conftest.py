"""What all tests share."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

# No test asks a hub: a CLIP that is not there is an error at once. The library reads this when imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from hypothesis import settings
from warm_process import warm_commands

# A busy machine must not fail a property by the clock; in CI the examples are the same on every run.
settings.register_profile("local", deadline=None, max_examples=50)
settings.register_profile("ci", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

# Under nohup SIGHUP is ignored, by whatever a test starts, too.
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with ``python`` and ``effort-finetune`` that start warm where the system can do that."""
    if not hasattr(os, "pidfd_open"):
        yield Path(sys.executable).parent
        return
    with warm_commands(tmp_path_factory.mktemp("warm")) as folder:
        yield folder
