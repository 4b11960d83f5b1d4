"""An explanation for readers: a table of shares and what they leave over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from effort_finetune.core.escaping import visible
from effort_finetune.evaluate.table import aligned
from effort_finetune.studies.explanation import Explanation

SHOWN = 5  # alternatives that did not fit


def explanation_text(found: Explanation) -> str:
    """Returns the table, with what was supposed marked and what could not be measured said."""
    rows = [["difference", "A", "B", "share"]]
    for one in found.shares:
        value = "-" if one.share is None else f"{one.share:+.4f}"
        other = _said(one.second) + ("" if one.stated else " (supposed)")
        rows.append([one.factor, _said(one.first), other, value])
    rows.append(["together and unexplained", "", "", f"{found.remainder:+.4f}"])
    rows.append(["the gap", f"{found.first:.4f}", f"{found.second:.4f}", f"{found.gap:+.4f}"])
    lines = [f"{visible(found.dataset)}, {found.metric}: why B differs from A", aligned(rows)]
    if found.together is not None and found.shares:
        lines.append(f"with all of them put back A has {found.together:.4f}, B has {found.second:.4f}")
    lines += [f"{one.factor}: not measured, {one.reason}" for one in found.shares if one.reason]
    lines += [visible(note, limit=400) for note in found.notes]
    supposed = {one.factor for one in found.shares if not one.stated}
    others = [one for one in found.alternatives if one[0] not in supposed][:SHOWN]
    if others:
        tried = ", ".join(f"{name} {_said(value)} ({off:.4f} off)" for name, value, off in others)
        lines.append(f"also tried, as B does not state them: {tried}")
    return "\n".join(lines)


def _said(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return " ".join(
            "/".join(f"{v:.3g}" for v in part) if isinstance(part, tuple) else str(part) for part in value
        )
    if isinstance(value, str) and "/" in value:
        return visible(Path(value).name)
    return visible(str(value), limit=40)
