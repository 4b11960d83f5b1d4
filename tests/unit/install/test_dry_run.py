"""The diff that ``--dry-run`` shows is the change itself: ``git apply`` makes the same tree of it."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from effort_finetune.cli.main import main
from effort_finetune.install.record import MANIFEST

#: What a text tool may cut lines at or cannot decode, beside the CRLF and the missing final newlines of
#: the host in miniature.
ODD = b"# form\x0cfeed, \xe2\x80\xa8 separator, \xc2\x85 next line, \xe9 latin-1\n\x0c\n"


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_git_apply_gives_the_same_tree(command, odd, host_root, tmp_path, snapshot, capsysbinary):
    if odd:
        test = host_root / "training/test.py"
        test.write_bytes(b"# -*- coding: latin-1 -*-\n" + ODD + test.read_bytes())
    if command == "uninstall":
        assert main(["install", str(host_root)]) == 0
    twin = shutil.copytree(host_root, tmp_path / "twin")
    capsysbinary.readouterr()
    assert main([command, str(host_root), "--dry-run"]) == 0
    (tmp_path / "shown").write_bytes(capsysbinary.readouterr().out)
    done = subprocess.run(["git", "apply", "../shown"], cwd=twin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert main([command, str(host_root)]) == 0
    trees = [snapshot(root) for root in (twin, host_root)]
    for tree in trees:
        tree.pop(MANIFEST, None)
    assert trees[0] == trees[1]
