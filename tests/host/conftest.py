"""The hosts the contract is tested on: the embedded one always, a real one where the environment names it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from bench_data import NEEDS_REAL, REAL, copy_host, write_dataset
from toyhost import save_clip

from effort_finetune.cli.main import main
from effort_finetune.core import resources
from effort_finetune.host import Host, open_host


@dataclass(frozen=True)
class Bench:
    """A copy of a host with the dataset UADFV, the plugin installed, and a toy CLIP beside it."""

    root: Path
    clip: Path
    #: What starts the commands of :meth:`warm`.
    interpreter: str = sys.executable

    @property
    def host(self) -> Host:
        return open_host(self.root)

    def script(self, name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Runs ``training/<name>`` from the host's root, as its README says."""
        return self.python(f"training/{name}", *arguments)

    def warm(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """As :meth:`python`; the embedded host's commands find torch imported."""
        return self.python(*arguments, interpreter=self.interpreter)

    def python(
        self, *arguments: object, interpreter: str = sys.executable
    ) -> subprocess.CompletedProcess[str]:
        """Runs the interpreter in the host's root."""
        environment = {key: value for key, value in os.environ.items() if key != "DEEPFAKEBENCH_ROOT"}
        return subprocess.run(
            [interpreter, *map(str, arguments)],
            cwd=self.root,
            env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(
    scope="session",
    params=["embedded", pytest.param("real", marks=(NEEDS_REAL, pytest.mark.real_host))],
)
def source(request: pytest.FixtureRequest) -> Path:
    """The host's own tree, which no test writes to."""
    if request.param == "real":
        return Path(str(REAL)).resolve()
    embedded = resources.embedded_host()
    assert embedded is not None
    return embedded


@pytest.fixture(scope="session")
def bench(source: Path, tmp_path_factory: pytest.TempPathFactory, warm: Path) -> Bench:
    folder = tmp_path_factory.mktemp("bench")
    root = copy_host(source, folder / "host")
    write_dataset(root, "UADFV")
    assert main(["install", str(root)]) == 0
    save_clip(folder / "clip", image_size=224, patch_size=32)
    embedded = source == resources.embedded_host()
    return Bench(root, folder / "clip", f"{warm}/python" if embedded else sys.executable)


@pytest.fixture
def run_in_new_process() -> Callable[..., str]:
    def run(program: str, *arguments: object) -> str:
        done = subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
