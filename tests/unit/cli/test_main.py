"""How commands end."""

from __future__ import annotations

import pytest

from effort_finetune.cli import main as main_file


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
