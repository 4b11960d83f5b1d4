"""A change is made as a whole or not at all; ``test_killed.py`` kills the commands at each step."""

from __future__ import annotations

import pytest

from effort_finetune.errors import UserError
from effort_finetune.host import open_host, transaction
from effort_finetune.host.installation import execute, plan_install


class Killed(BaseException):
    """The process died here."""


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
