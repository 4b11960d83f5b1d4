"""How a process that ran a command ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

from effort_finetune.core.exit_code import exit_code


def test_the_end_of_a_process_does_not_go_through_what_it_imported():
    program = (
        "import atexit, gc\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 0))\n"  # runs after what is registered later
        "import effort_finetune.core.exit_code"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr


@pytest.mark.parametrize(("name", "told"), [("torch.nn", True), ("effort_finetune.nothing", False)])
def test_a_package_that_is_not_there_is_one_line(name, told, capsys):
    def work() -> int:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    if told:
        assert exit_code(work) == 2
        assert f"the package 'torch' is not installed for this Python; got {sys.executable}" in (
            capsys.readouterr().err
        )
    else:
        with pytest.raises(ModuleNotFoundError):
            exit_code(work)
