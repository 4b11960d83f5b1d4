"""docs/architecture.md shows the house as it is: its rooms and arrows, and files that exist."""

from __future__ import annotations

import importlib.util
import re

import pytest

from tools.generate import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PICTURE = re.search(r"```mermaid\n(.*?)```", PAGE, re.S)[1]


@pytest.fixture(scope="module")
def arrows():
    spec = importlib.util.spec_from_file_location("arrows", ROOT / "tests" / "unit" / "test_arrows.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_has_the_rooms_in_their_lines(arrows):
    lines = re.findall(r"subgraph \w+\n(.*?)\n  end", PICTURE, re.S)
    assert tuple(tuple(line.split()) for line in lines) == arrows.LINES


def test_the_picture_has_the_arrows(arrows):
    names = re.findall(r"subgraph (\w+)", PICTURE)
    assert f"  {' --> '.join(names)}\n" in PICTURE
    sideways = set(re.findall(r"^  (\w+) --> (\w+)$", PICTURE, re.M))
    assert sideways == arrows.SIDEWAYS


def test_the_table_has_every_room(arrows):
    rows = [re.findall(r"`(\w+)`", row) for row in re.findall(r"^\| (`.*?) \|", PAGE, re.M)]
    assert tuple(map(tuple, rows)) == arrows.LINES


def test_every_file_that_it_names_exists():
    named = set(re.findall(r"`([\w/]+\.(?:py|yaml|json))`", PAGE))
    assert len(named) > 30
    places = (ROOT, ROOT / "plugin" / "effort_finetune")
    missing = [name for name in sorted(named) if not any((place / name).is_file() for place in places)]
    assert not missing
