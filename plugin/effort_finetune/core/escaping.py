"""The one place where text from files, flags and names is made fit for a terminal, a log, a CSV or HTML.

A dataset's, video's or file's name may hold anything: an escape sequence that repaints the terminal or hides
a line, a newline that forges a log record, a cell that a spreadsheet runs as a formula, a tag. Nothing is
dropped: what cannot be shown is written as Python would escape it, what is too long is cut with its length.
"""

from __future__ import annotations

import html
import logging
import unicodedata

#: Longest name or value quoted in a message, and longest line that a message becomes.
NAME_LIMIT, LINE_LIMIT = 200, 4000
#: A cell that begins with one of these is a formula to a spreadsheet (OWASP, "CSV Injection").
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
#: Categories without a glyph: controls, formats (direction overrides), surrogates, line separators.
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def visible(text: object, *, limit: int | None = NAME_LIMIT, keep: str = "") -> str:
    r"""Returns one line of text in which every character can be seen.

    Args:
        text: Anything; its ``str`` is taken.
        limit: Characters kept; what is cut is counted. ``None`` cuts nothing.
        keep: Unseen characters left as they are, e.g. ``"\n"``.

    Returns:
        Control characters, direction overrides, line separators and lone surrogates as ``\x1b``, ``\u202e``.
    """
    text = str(text)
    length = len(text)
    if limit is not None and length > limit:
        text = text[:limit]
    if not (text.isascii() and text.isprintable()):
        text = "".join(c if c in keep or not _unseen(c) else _escape(c) for c in text)
    return text if limit is None or length <= limit else f"{text}… ({length} characters)"


def for_csv(text: object) -> str:
    """Returns a cell that no spreadsheet runs and that :func:`from_csv` reads back as it was.

    A leading ``= + - @``, tab or carriage return gets an apostrophe before it, which spreadsheets take as
    "text follows"; so does a leading apostrophe, to be read back alone.
    """
    text = str(text)
    return f"'{text}" if text.startswith((*_FORMULA, "'")) else text


def from_csv(cell: str) -> str:
    """Returns the text that :func:`for_csv` wrote."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith((*_FORMULA, "'")) else cell


def for_html(text: object, *, limit: int | None = NAME_LIMIT) -> str:
    """Returns text for an element or a quoted attribute of a page, escaped and cut like :func:`visible`."""
    return html.escape(visible(text, limit=limit), quote=True)


class VisibleFormatter(logging.Formatter):
    """Formats log records whose message may hold text from files: unseen characters are escaped.

    Newlines stay, since tables are logged as records of several lines; a message built from names has had
    them escaped by :func:`visible`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Formats the record and escapes what cannot be seen."""
        return visible(super().format(record), limit=None, keep="\n\t")


def _unseen(character: str) -> bool:
    return unicodedata.category(character) in _UNSEEN


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
