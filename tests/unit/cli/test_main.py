"""How commands end."""

from __future__ import annotations

import pytest

from effort_finetune.cli import main as main_file
from effort_finetune.core.errors import RunFailure
from effort_finetune.core.exit_code import exit_code


def test_ctrl_c_before_a_run_has_begun_is_one_line(monkeypatch, capsys):
    def interrupted(*args: object, **kwargs: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(main_file, "run_command", interrupted)
    assert main_file.main(["status"]) == 130
    assert capsys.readouterr().err == "error: interrupted by the user\n"
    with pytest.raises(KeyboardInterrupt):
        main_file.main(["status", "--debug"])


def test_every_unknown_flag_is_told_at_once_without_its_value(capsys):
    words = "--nepochs 3 --nEpochs 3 --optimizer.learning_rate=-1 --lr -1 --frame_num.tset -1"
    assert main_file.main(["finetune", *words.split()]) == 2
    first, second, third = capsys.readouterr().err.splitlines()
    assert first.startswith(
        "error: effort-finetune finetune: unknown argument; got '--nepochs'; next: did you"
    )
    assert "got '--optimizer.learning_rate'" in second
    assert "got '--frame_num.tset'; next: did you mean '--frame_num.test'" in third


def test_a_word_too_many_is_told(capsys):
    assert main_file.main(["status", "here", "there"]) == 2
    assert "unknown argument; got 'there'; next: effort-finetune status --help" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [RunFailure("a\x1b[2Jb stopped"), OSError(28, "No space left", "a\x1b[2Jb")]
)
def test_a_failure_with_a_hostile_name_is_one_visible_line(error, capsys):
    def fail() -> int:
        raise error

    assert exit_code(fail) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "\x1b" not in line
