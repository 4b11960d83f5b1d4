"""Text from files can be seen, is bounded, runs in no spreadsheet and breaks out of no page."""

from __future__ import annotations

import html
import logging
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effort_finetune.core.escaping import VisibleFormatter, for_csv, for_html, from_csv, visible

ANY = st.text(st.characters(codec=None, exclude_categories=()))


@given(ANY)
def test_every_character_of_visible_text_has_a_glyph(text):
    shown = visible(text)
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in shown)
    assert len(shown) <= 10 * 200 + 40
    shown.encode()  # no lone surrogate is left for a file or terminal to fail on


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name", "plain name"),
        ("Zoë/фейк/偽", "Zoë/фейк/偽"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\nb\r", "a\\nb\\r"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\udcff", "\\udcff"),
        ("x" * 500, "x" * 200 + "… (500 characters)"),
    ],
)
def test_what_is_escaped_and_what_stays(text, shown):
    assert visible(text) == shown


@given(ANY)
def test_no_cell_is_a_formula_and_each_reads_back(text):
    cell = for_csv(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert from_csv(cell) == text


def test_files_of_before_read_as_they_are():
    assert from_csv("UADFV/real/0001") == "UADFV/real/0001"


@given(ANY)
def test_html_cannot_be_left(text):
    page = for_html(text, limit=None)
    assert not set("<>\"'") & set(page)
    assert html.unescape(page) == visible(text, limit=None)


def test_a_log_line_hides_nothing():
    record = logging.LogRecord("n", logging.INFO, "", 0, "frame %s\nsecond line", ("a\x1b[1A\x08",), None)
    assert VisibleFormatter("%(message)s").format(record) == "frame a\\x1b[1A\\x08\nsecond line"
