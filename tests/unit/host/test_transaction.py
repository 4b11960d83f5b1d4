"""Killed at any step, a change is made as a whole or not at all."""

from __future__ import annotations

import os
import pathlib
import shutil
from pathlib import Path

import pytest

from effort_finetune.errors import UserError
from effort_finetune.host import open_host, transaction
from effort_finetune.host.installation import execute, plan_install, plan_uninstall


class Killed(BaseException):
    """The process died here."""


class Killer:
    """Raises at the ``n``-th call that changes the disk, and at every later one, as a dead process would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, n: int) -> None:
        self.left = n
        for owner, name in (
            (os, "replace"),
            (os, "fsync"),
            (os, "unlink"),
            (pathlib.Path, "unlink"),
            (pathlib.Path, "open"),
            (pathlib.Path, "write_bytes"),
        ):
            monkeypatch.setattr(owner, name, self._wrap(getattr(owner, name), name))

    def _wrap(self, function, name):
        def counted(*args, **kwargs):
            if name != "open" or "w" in "".join(map(str, args[1:2])):
                self.left -= 1
                if self.left < 0:
                    raise Killed
            return function(*args, **kwargs)

        return counted


def steps_of(action, monkeypatch) -> int:
    with monkeypatch.context() as patched:
        killer = Killer(patched, 10**9)
        action()
        return 10**9 - killer.left


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_killed_at_every_step(command, host_root: Path, tmp_path, snapshot, monkeypatch):
    bare = snapshot(host_root)
    full_root = shutil.copytree(host_root, tmp_path / "full")
    execute(plan_install(open_host(full_root)))
    plans = {"install": plan_install, "uninstall": plan_uninstall}
    start = {"install": host_root, "uninstall": full_root}[command]

    ends = {"install": (bare, snapshot(full_root)), "uninstall": (snapshot(full_root), bare)}[command]
    trial = shutil.copytree(start, tmp_path / "count")
    plan = plans[command](open_host(trial))
    steps = steps_of(lambda: execute(plan), monkeypatch)
    assert steps > 20
    outcomes = set()
    for n in range(steps):
        trial = shutil.copytree(start, tmp_path / f"trial{n}")
        plan = plans[command](open_host(trial))
        with monkeypatch.context() as patched:
            Killer(patched, n)
            with pytest.raises(Killed):
                execute(plan)
        outcomes.add(transaction.recover(trial))
        assert not transaction.is_interrupted(trial)
        assert snapshot(trial) in ends, f"half applied after step {n}"
        execute(plans[command](open_host(trial)))  # and the command can simply be run again
        assert snapshot(trial) == ends[1]
    assert outcomes == {None, "undone", "finished"}


def test_a_file_changed_since_the_crash_is_not_overwritten(host_root, monkeypatch):
    plan = plan_install(open_host(host_root))
    with monkeypatch.context() as patched:
        patched.setattr(transaction, "_finish", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            execute(plan)
    train = host_root / "training/train.py"
    train.write_text("# something else\n")
    with pytest.raises(UserError, match=r"training/train\.py was changed after an interrupted"):
        transaction.recover(host_root)
    assert train.read_text() == "# something else\n"


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
