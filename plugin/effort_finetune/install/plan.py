"""The changes that an install or uninstall would make, as data and as a diff."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from effort_finetune.host.marked_blocks import split_lines
from effort_finetune.install.record import MANIFEST


@dataclass(frozen=True)
class Change:
    """One file that becomes another.

    Attributes:
        path: Relative to the host's root.
        action: For people: ``patch``, ``add``, ``replace``, ``restore``, ``remove``.
        before: Its content, ``None`` when it is not there.
        after: Its new content, ``None`` to delete it.
    """

    path: str
    action: str
    before: bytes | None
    after: bytes | None


@dataclass(frozen=True)
class Plan:
    """All changes of one install or uninstall, computed and checked, none of them made.

    Attributes:
        root: The host's root.
        changes: In the order they are made. Empty when nothing is to do.
        notes: What a person should know: files kept because they were edited, and the like.
        folders: Folders to remove afterwards where they are empty then.
    """

    root: Path
    changes: tuple[Change, ...]
    notes: tuple[str, ...] = field(default_factory=tuple)
    folders: tuple[str, ...] = ()

    def diff(self) -> bytes:
        """Returns the changes as one diff that ``git apply`` takes, the record left out."""
        shown = [change for change in self.changes if change.path != MANIFEST]
        return b"".join(line for change in shown for line in _diff(change))


def _diff(change: Change) -> Iterator[bytes]:
    name = change.path.encode()
    yield b"diff --git a/%b b/%b\n" % (name, name)
    if change.before is None:
        yield b"new file mode 100644\n"
    if change.after is None:
        yield b"deleted file mode 100644\n"
    lines = difflib.diff_bytes(
        difflib.unified_diff,
        split_lines(change.before or b""),
        split_lines(change.after or b""),
        b"/dev/null" if change.before is None else b"a/" + name,
        b"/dev/null" if change.after is None else b"b/" + name,
    )
    for line in lines:
        yield line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n"
