"""A leaderboard as text, Markdown, CSV, LaTeX (booktabs), JSON and HTML."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from effort_finetune.core.escaping import for_csv, visible
from effort_finetune.core.files import write_text
from effort_finetune.evaluate.table import aligned
from effort_finetune.evaluate.table_formats import latex_text
from effort_finetune.studies.board_table import BEST, NOT_TOLD, UNTESTED

#: Format to the suffix of its file.
FORMATS = {"text": "txt", "markdown": "md", "csv": "csv", "latex": "tex", "json": "json", "html": "html"}
#: Mark behind a number in plain text.
_SIGNS = {BEST: "*", NOT_TOLD: "=", UNTESTED: "?"}
ABSENT = "-"
MIXED, PUBLISHED = "(other protocol)", "(published)"


def rendered_board(document: Mapping[str, Any], form: str) -> str:
    """Returns a leaderboard in one of :data:`FORMATS`.

    Args:
        document: Of :func:`~effort_finetune.studies.board_table.document_of`.
        form: The format.
    """
    return _RENDERERS[form](document)


def write_board(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes ``leaderboard.<suffix>`` in every format; returns the paths."""
    return [
        write_text(folder / f"leaderboard.{suffix}", rendered_board(document, form) + "\n")
        for form, suffix in FORMATS.items()
    ]


def legend(document: Mapping[str, Any]) -> list[str]:
    """Returns the sentences that say how the numbers are to be read."""
    tests = sum(test["p"] is not None for test in document["comparisons"])
    lines = [
        f"{document['declared']} decides: * best of the column, = not told from it (paired on the same "
        f"videos, DeLong; Holm over {tests} tests, .05). Everything else without a sign is behind.",
        "[low, high] is the 95 % interval over videos; a value with ± is mean and deviation over seeds.",
    ]
    if any(test["p"] is None for test in document["comparisons"]):
        lines.append("? could not be tested: no scores, or too few videos in common.")
    if any(len(column["of"]) > 1 for column in document["columns"]):
        lines.append("Averages are plain means over datasets, empty where one is missing.")
    inside = [column["name"] for column in document["columns"] if column["in_domain"]]
    if inside:
        lines.append(f"In domain: {', '.join(inside)}.")
    sources: dict[str, tuple[str, list[str]]] = {}
    for row in document["rows"]:
        if row["kind"] == "published":
            protocol = "; ".join(f"{key}: {value}" for key, value in row["protocol"].items())
            quoted = ", second-hand" if row["source"]["second_hand"] else ""
            where = f"{row['source']['title']}, {row['source']['place']}{quoted}, {row['source']['url']}"
            sources.setdefault(where, (protocol, []))[1].append(row["detector"])
    lines += [
        f"Published, not measured here: {', '.join(names)} ({where}; {protocol})."
        for where, (protocol, names) in sources.items()
    ]
    if document["missing"]:
        lines.append(f"Not there yet: {len(document['missing'])} cells, first {document['missing'][0]}.")
    return [*lines, *document["notes"]]


def _number(cell: Mapping[str, Any]) -> str:
    """The value with its interval or deviation, without a mark."""
    if cell["mean"] is None:
        return ABSENT
    text = f"{cell['mean']:.4f}"
    if cell["deviation"] is not None:
        return f"{text} ± {cell['deviation']:.4f}"
    if cell["interval"] is not None:
        return f"{text} [{cell['interval'][0]:.3f}, {cell['interval'][1]:.3f}]"
    return text


def _name(row: Mapping[str, Any]) -> str:
    if row["kind"] == "published":
        return f"{row['detector']} {PUBLISHED}"
    return f"{row['detector']} {MIXED}" if row["mixed_protocol"] else str(row["detector"])


def _tables(document: Mapping[str, Any]) -> list[tuple[str, list[list[str]], list[list[str | None]]]]:
    """Title, rows of text (heading first) and the mark of each number, for each metric and for the groups."""
    names = [column["name"] for column in document["columns"]]
    tables = []
    for metric in document["metrics"]:
        own = [row for row in document["rows"] if metric in row["cells"]]
        cells = [[row["cells"][metric][name] for name in names] for row in own]
        texts = [[_name(row), *map(_number, line)] for row, line in zip(own, cells, strict=True)]
        marks = [[cell["mark"] for cell in line] for line in cells]
        tables.append((metric, [["detector", *names], *texts], marks))
    if document["groups"]:
        detectors = list(dict.fromkeys(name for entry in document["groups"] for name in entry["auc"]))
        texts = [
            [f"{entry['dataset']}: {entry['group']}"]
            + [f"{entry['auc'][name]:.4f}" if name in entry["auc"] else ABSENT for name in detectors]
            for entry in document["groups"]
        ]
        blank: list[list[str | None]] = [[None] * len(detectors) for _ in texts]
        tables.append(("video_auc by group", [["group", *detectors], *texts], blank))
    return tables


def _text(document: Mapping[str, Any]) -> str:
    parts = [visible(document["title"])]
    for title, rows, marks in _tables(document):
        signed = [rows[0], *_signed(rows[1:], marks)]
        # The table's first two columns are names; a leaderboard has one.
        shown = [[visible(row[0]), "", *map(visible, row[1:])] for row in signed]
        parts.append(f"{title}\n{aligned(shown)}")
    return "\n\n".join([*parts, "\n".join(visible(line, limit=None) for line in legend(document))])


def _signed(rows: Sequence[Sequence[str]], marks: Sequence[Sequence[str | None]]) -> list[list[str]]:
    return [
        [row[0], *(f"{cell} {_SIGNS.get(mark or '', ' ')}" for cell, mark in zip(row[1:], line, strict=True))]
        for row, line in zip(rows, marks, strict=True)
    ]


def _markdown(document: Mapping[str, Any]) -> str:
    parts = [f"# {_md(document['title'])}"]
    for title, rows, marks in _tables(document):
        lines = [rows[0], [":--", *["--:"] * (len(rows[0]) - 1)]]
        for row, line in zip(rows[1:], marks, strict=True):
            cells = [_md(cell) for cell in row[1:]]
            lines.append([_md(row[0]), *(_emphasised(c, m) for c, m in zip(cells, line, strict=True))])
        head, *rest = lines
        table = [f"| {' | '.join(map(_md, head))} |", *(f"| {' | '.join(row)} |" for row in rest)]
        parts.append(f"## {_md(title)}\n\n" + "\n".join(table))
    return "\n\n".join([*parts, "\n".join(f"- {_md(line)}" for line in legend(document))])


def _md(text: str) -> str:
    shown = visible(text, limit=None)
    for sign in ("\\", "|", "*", "_", "<", "`"):
        shown = shown.replace(sign, f"\\{sign}" if sign != "<" else "&lt;")
    return shown


def _emphasised(cell: str, mark: str | None) -> str:
    return f"**{cell}** \\*" if mark == BEST else f"{cell} {_SIGNS[mark]}" if mark in _SIGNS else cell


def _csv(document: Mapping[str, Any]) -> str:
    """One row a number: what a program or a spreadsheet needs to make its own table."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    head = ("metric", "detector", "kind", "column", "value", "deviation", "seeds", "low", "high", "mark")
    writer.writerow([*head, "other_protocol", "source"])
    for metric in document["metrics"]:
        for row in document["rows"]:
            for column, cell in row["cells"].get(metric, {}).items():
                low, high = cell["interval"] or ("", "")
                source = "" if row["source"] is None else row["source"]["url"]
                numbers = (cell["mean"], cell["deviation"], len(cell["values"]) or "", low, high)
                writer.writerow(
                    [metric, for_csv(row["detector"]), row["kind"], for_csv(column)]
                    + ["" if value is None else value for value in numbers]
                    + [cell["mark"] or "", "; ".join(map(for_csv, row["mixed_protocol"])), for_csv(source)]
                )
    return stream.getvalue().rstrip("\n")


def _latex(document: Mapping[str, Any]) -> str:
    """Tables for ``\\usepackage{booktabs}``; the best is bold, what is not told from it underlined."""
    notes = [
        f"{document['title']}; needs \\usepackage{{booktabs}}; bold: best, underlined: not told from it",
        *legend(document),
    ]
    parts = ["\n".join(f"% {visible(line, limit=None)}" for line in notes)]
    for title, rows, marks in _tables(document):
        body: list[str] = []
        for row, line in zip(rows[1:], marks, strict=True):
            if row[0].endswith(PUBLISHED) and not any(rule == r"\midrule" for rule in body):
                body.append(r"\midrule")
            cells = [_latex_cell(cell, mark) for cell, mark in zip(row[1:], line, strict=True)]
            body.append(f"{latex_text(row[0])} & {' & '.join(cells)} \\\\")
        lines = [f"% {visible(title)}", f"\\begin{{tabular}}{{l{'c' * (len(rows[0]) - 1)}}}", r"\toprule"]
        lines += [f"{' & '.join(map(latex_text, rows[0]))} \\\\", r"\midrule", *body, r"\bottomrule"]
        parts.append("\n".join([*lines, r"\end{tabular}"]))
    return "\n\n".join(parts)


def _latex_cell(cell: str, mark: str | None) -> str:
    if cell == ABSENT:
        return "--"
    value, _, rest = cell.partition(" ")
    value = (
        rf"\textbf{{{value}}}" if mark == BEST else rf"\underline{{{value}}}" if mark == NOT_TOLD else value
    )
    if not rest:
        return value
    small = rest.replace("± ", r"$\pm$\,") if rest.startswith("±") else rest
    return rf"{value} {{\scriptsize {small}}}"


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)


def _html(document: Mapping[str, Any]) -> str:
    template = files(__package__).joinpath("board_page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    tables = [
        {
            "title": title,
            "head": rows[0],
            "rows": [
                {
                    "name": visible(row[0]),
                    "published": row[0].endswith(PUBLISHED),
                    "cells": [
                        {"text": text, "mark": {BEST: "best", NOT_TOLD: "even"}.get(mark or "", "")}
                        for text, mark in zip(row[1:], line, strict=True)
                    ],
                }
                for row, line in zip(rows[1:], marks, strict=True)
            ],
        }
        for title, rows, marks in _tables(document)
    ]
    lines = [visible(line, limit=None) for line in legend(document)]
    return environment.from_string(template).render(
        title=visible(document["title"]), tables=tables, legend=lines
    )


_RENDERERS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "text": _text, "markdown": _markdown, "csv": _csv, "latex": _latex, "json": _json, "html": _html,
}  # fmt: skip
