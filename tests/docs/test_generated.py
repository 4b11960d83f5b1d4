"""What ``make generate`` writes is what the code's tables say now."""

from __future__ import annotations

import re
import shutil

import pytest

from tools.generate import BLOCKS, ROOT, generated


@pytest.mark.parametrize("path", generated(), ids=lambda path: path.name)
def test_what_is_generated_is_current(path):
    assert path.read_text(encoding="utf-8") == generated()[path], "make generate"


def test_every_block_stands_on_a_page():
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))
    assert sorted(re.findall(r"^<!-- generated: (\w+) -->$", pages, re.M)) == sorted(BLOCKS)


def test_a_block_is_replaced_and_nothing_around_it(tmp_path):
    for folder in ("docs", "DeepfakeBench/training/config"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    page = tmp_path / "docs" / "settings.md"
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("| `nEpochs` |", "| `epochs` |"), encoding="utf-8")
    assert page.read_text(encoding="utf-8") != text
    assert generated(tmp_path)[page] == text
