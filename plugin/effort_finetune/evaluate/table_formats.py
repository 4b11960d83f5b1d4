"""One table in the format that is asked for: text, Markdown, CSV, LaTeX (booktabs)."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from effort_finetune.core.escaping import for_csv, visible
from effort_finetune.evaluate.table import aligned

FORMATS = ("text", "markdown", "csv", "latex", "json")
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def rendered(rows: Sequence[Sequence[str]], form: str) -> str:
    """Returns a table.

    Args:
        rows: The heading and the rows, all of one length; the first two columns are names.
        form: One of :data:`FORMATS` but ``json``.
    """
    return {"text": _text, "markdown": _markdown, "csv": _csv, "latex": _latex}[form](rows)


def latex_text(text: object) -> str:
    """Returns text that LaTeX prints as it is."""
    return "".join(_LATEX.get(character, character) for character in visible(text))


def _text(rows: Sequence[Sequence[str]]) -> str:
    return aligned([[visible(cell) for cell in row] for row in rows])


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    cells = [[visible(cell).replace("|", r"\|") for cell in row] for row in rows]
    rule = [":--", ":--", *["--:"] * (len(rows[0]) - 2)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [cells[0], rule, *cells[1:]])


def _csv(rows: Sequence[Sequence[str]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    # A signed number is a number to a spreadsheet, not a formula.
    writer.writerows([cell if _is_number(cell) else for_csv(cell) for cell in row] for row in rows)
    return stream.getvalue().rstrip("\n")


def _latex(rows: Sequence[Sequence[str]]) -> str:
    cells = [[latex_text(cell) for cell in row] for row in rows]
    columns = "ll" + "r" * (len(rows[0]) - 2)
    lines = [f"{' & '.join(row)} \\\\" for row in cells]
    top, rest = lines[0], lines[1:]
    return "\n".join(
        [
            f"\\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            top,
            r"\midrule",
            *rest,
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
