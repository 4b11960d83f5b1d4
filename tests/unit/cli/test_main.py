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
