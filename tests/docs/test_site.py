"""The pages as a site: complete, strict, and the API's page names what is public."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import effort_finetune
from tools.generate import ROOT


def test_the_site_is_built_without_a_warning(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--strict",
            "--quiet",
            "--site-dir",
            str(tmp_path / "site"),
        ],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    api = (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")
    for name in effort_finetune.__all__:
        assert re.search(rf'id="effort_finetune\.[\w.]*\b{name}"', api), name


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r"^  - .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M))
    folder = ROOT / "docs"
    assert listed == {path.relative_to(folder).as_posix() for path in folder.rglob("*.md")}
