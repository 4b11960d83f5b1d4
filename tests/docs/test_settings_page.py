"""docs/settings.md is what ``effort-finetune settings`` prints."""

from pathlib import Path

from effort_finetune.cli.settings import aliases_table, table


def test_the_page_holds_the_current_table():
    page = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
    assert table() in page.read_text(encoding="utf-8")


def test_the_page_holds_the_other_names():
    page = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
    assert aliases_table() in page.read_text(encoding="utf-8")
