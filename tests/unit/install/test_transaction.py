"""A change is made as a whole or not at all; ``test_killed.py`` kills the commands at each step."""

from __future__ import annotations

import os

import pytest

from effort_finetune.cli.main import main
from effort_finetune.core.errors import UserError
from effort_finetune.host import open_host
from effort_finetune.install import transaction
from effort_finetune.install.installation import execute, plan_install, plan_uninstall


class Killed(BaseException):
    """The process died here."""


def _cut_off(root, monkeypatch):
    plan = plan_install(open_host(root))
    with monkeypatch.context() as patched:
        patched.setattr(transaction, "_finish", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            execute(plan)


@pytest.mark.parametrize("finished", ["nothing", "training/detectors/__init__.py"])
def test_a_file_changed_since_the_crash_stays_and_the_command_goes_on(
    host_root, snapshot, monkeypatch, finished, capsys
):
    train = host_root / "training/train.py"
    pulled = b"# a line of a git pull\r\n" + train.read_bytes()
    train.write_bytes(pulled)
    before = snapshot(host_root)
    train.write_bytes(pulled.partition(b"\n")[2])
    _cut_off(host_root, monkeypatch)
    target = host_root / finished
    if target.is_file():
        os.replace(transaction._staged(target), target)
    train.write_bytes(pulled)
    assert main(["uninstall", str(host_root)]) == 0
    assert "dropped, for training/train.py was changed since" in capsys.readouterr().out
    assert snapshot(host_root) == before


def test_a_folder_that_cannot_be_written_is_a_user_error(host_root, snapshot, monkeypatch):
    before = snapshot(host_root)
    plan = plan_install(open_host(host_root))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transaction, "_stage", full)
    with pytest.raises(UserError, match="cannot be written"):
        execute(plan)
    assert snapshot(host_root) == before


def test_modes_and_links_are_kept(tmp_path):
    target = tmp_path / "elsewhere" / "real.py"
    target.parent.mkdir()
    target.write_text("old")
    target.chmod(0o755)
    (tmp_path / "link.py").symlink_to(target)
    transaction.apply(tmp_path, {"link.py": b"new"})
    assert (tmp_path / "link.py").is_symlink()
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o755
    assert sorted(p.name for p in target.parent.iterdir()) == ["real.py"]


def test_a_change_that_cannot_be_finished_says_so_and_is_finished_later(host_root, snapshot, monkeypatch):
    before = snapshot(host_root)
    execute(plan_install(open_host(host_root)))
    installed = plan_uninstall(open_host(host_root))
    with monkeypatch.context() as patched:

        def denied(path, **_):
            raise PermissionError(13, "Permission denied", str(path))

        patched.setattr(transaction, "_remove", denied)
        with pytest.raises(UserError, match="run the command again"):
            execute(installed)
    assert transaction.recover(host_root) == "finished"
    assert snapshot(host_root) == before


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_a_dry_run_does_not_plan_on_half_a_change(command, host_root, snapshot, monkeypatch, capsys):
    _cut_off(host_root, monkeypatch)
    before = snapshot(host_root)
    assert main([command, str(host_root), "--dry-run"]) == 2
    assert "was cut off" in capsys.readouterr().err
    assert snapshot(host_root) == before


@pytest.mark.parametrize("text", ["{}", "not json", '{"state": "committed", "operations": [1]}'])
def test_a_damaged_journal_is_a_user_error(host_root, text):
    (host_root / transaction.JOURNAL).write_text(text)
    with pytest.raises(UserError, match="is damaged"):
        transaction.recover(host_root)
