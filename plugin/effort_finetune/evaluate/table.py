"""Results as plain text for a terminal and a log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from effort_finetune.core.escaping import LINE_LIMIT, visible
from effort_finetune.core.metrics import LOWER_IS_BETTER, TABLE

#: Metric and heading of the columns of the results table.
COLUMNS = tuple((name, metric.title) for name, metric in TABLE.items() if metric.column)
ABSENT = "-"
#: What a dataset's own protocol says of its pixels beside the run's protocol.
_DATASET_PROTOCOL = ("source", "mean", "std", "augmentation")


def results_table(document: Mapping[str, Any]) -> str:
    """Returns the table of one run: a video row and a frame row for each dataset, and the averages.

    Args:
        document: A results document.
    """
    rows = [["dataset", "level", *(title for _, title in COLUMNS), "AUC 95% CI", "n"]]
    for name, block in document["datasets"].items():
        for level in ("video", "frame"):
            metrics = block[level]
            counts = block["counts"]
            size = f"{counts[f'{level}s_real']} real + {counts[f'{level}s_fake']} fake"
            if metrics is None:
                rows.append([visible(name), level, *[ABSENT] * len(COLUMNS), ABSENT, size])
                continue
            values = _cells(metrics)
            rows.append([visible(name), level, *values, interval(metrics["ci95"]["intervals"]["auc"]), size])
    if len(document["datasets"]) > 1:
        for level in ("video", "frame"):
            values = _cells(document["average"][level])
            rows.append(["average", level, *values, "", ""])
        for level, pooled in document["average"].get("over_samples", {}).items():
            values = _cells(pooled)
            rows.append(["all samples", level, *values, "", f"{pooled['real']} real + {pooled['fake']} fake"])
    lines = [aligned(rows), *_across_lines(document["average"].get("across") or {})]
    for name, block in document["datasets"].items():
        lines += [
            f"{visible(name)} {visible(group)}: video AUC {number(row['auc'])}, ACC {number(row['acc'])}, "
            f"{row['real']} real + {row['fake']} fake"
            for group, row in (block.get("groups") or {}).items()
        ]
        lines += calibrated_lines(name, block.get("calibrated"))
        if missing := block["counts"]["frames_missing"]:
            lines.append(
                f"{visible(name)}: {missing} of {block['counts']['frames_listed']} frames could not be read"
            )
        for level in ("video", "frame"):
            if block[level] is not None and (reason := block[level]["null_reasons"].get("auc")):
                lines.append(f"{visible(name)}: no {level} AUC, {reason}")
        lines += [f"{visible(name)}: {visible(note, limit=LINE_LIMIT)}" for note in _folder_notes(block)]
        lines.extend(f"warning: {visible(warning, limit=LINE_LIMIT)}" for warning in block["warnings"])
    return "\n".join(lines)


def _folder_notes(block: Mapping[str, Any]) -> list[str]:
    """How a folder was read, such as its held-out share alone: the counts of a row do not say why."""
    parts = (block.get("protocol") or {}).get("datasets") or {}
    return [note for part in parts.values() for note in (part.get("folder") or {}).get("notes", ())]


def _cells(values: Mapping[str, Any]) -> list[str]:
    return [TABLE[metric].text(values[metric]) for metric, _ in COLUMNS]


def _across_lines(across: Mapping[str, Any]) -> list[str]:
    lines = []
    if (cross := across.get("cross_auc")) is not None:
        lines.append(
            f"video Cross-AUC (reals of one dataset, fakes of another): mean {number(cross['mean'])}, worst "
            f"{number(cross['worst'])} of {len(cross['pairs'])} pairs"
        )
    if (worst := across.get("worst_group")) is not None:
        lines.append(
            f"worst group: {visible(worst['group'])} of {visible(worst['dataset'])}, "
            f"video AUC {number(worst['auc'])}"
        )
    return lines


def calibrated_lines(name: str, block: Mapping[str, Any] | None) -> list[str]:
    """Returns what the weights' calibration makes of a dataset's videos, a few short lines."""
    if block is None:
        return []
    gains = [
        f"{title} {number(block['raw'][key])} raw, {number(block['calibrated'][key])} calibrated"
        for key, title in (("nll", "NLL"), ("ece", "ECE"), ("brier", "Brier"))
    ]
    lines = [f"{name} calibrated: {'; '.join(gains)}"]
    lines += [
        f"{name} at threshold {key} ({number(at['threshold'])}): FPR {number(at['fpr'])} "
        f"{interval(at['fpr_interval'])}, recall {number(at['recall'])}, ACC {number(at['acc'])}, "
        f"F1 {number(at['f1'])}"
        for key, at in block["at"].items()
    ]
    if (band := block["unsure"]) is not None:
        lines.append(
            f"{name} unsure between {number(band['low'])} and {number(band['high'])}: {band['share']:.1%} of "
            f"videos; reals called fake {number(band['real_called_fake'])}, "
            f"fakes called real {number(band['fake_called_real'])}"
        )
    return lines


_INTERVALS = "confidence_intervals."


def protocol_differences(documents: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> list[str]:
    """Returns a line for each protocol entry or count in which the runs differ: these do not compare.

    An entry that is ``None`` is not known, e.g. what chose a checkpoint that is only measured, and differs
    from nothing.
    """
    protocols = [dict(_entries(document["protocol"])) for document in documents]
    # Of another schema version, a number may be defined in another way.
    rows = [("schema_version differs", [document.get("schema_version") for document in documents])]
    for key in dict.fromkeys(key for protocol in protocols for key in protocol):
        # How a file's intervals were made is no property of its numbers; those of differences are made anew.
        what = "intervals stated by the files differ" if key.startswith(_INTERVALS) else "protocol differs"
        rows.append((f"{what} in {key}", [protocol.get(key) for protocol in protocols]))
    for name in dict.fromkeys(name for document in documents for name in document["datasets"]):
        blocks = [document["datasets"].get(name) or {} for document in documents]
        scored = f"{name} differs in what was scored"
        sizes = [_size(block["counts"]) if "counts" in block else None for block in blocks]
        frames = [block.get("frames_sha256", "")[:12] or None for block in blocks]
        # Sums only where sizes tell nothing; a file of schema 1.0 has none.
        rows.append((scored, sizes) if _differ(sizes) else (f"{scored}, as many but other frames", frames))
        for key in _DATASET_PROTOCOL:
            rows.append(
                (f"{name} differs in {key}", [block.get("protocol", {}).get(key) for block in blocks])
            )
    return [
        f"{what}: {', '.join(f'{label} {value}' for label, value in zip(labels, values, strict=True))}"
        for what, values in rows
        if _differ(values)
    ]


def _differ(values: Sequence[Any]) -> bool:
    known = [value for value in values if value is not None]
    return any(value != known[0] for value in known[1:])


def taints(documents: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> list[str]:
    """Returns a line for each warning of a dataset, with the runs that carry it."""
    carriers: dict[tuple[str, str], list[str]] = {}
    for document, label in zip(documents, labels, strict=True):
        for name, block in document["datasets"].items():
            for warning in block["warnings"]:
                carriers.setdefault((name, warning), []).append(label)
    return [f"warning: {name} of {', '.join(runs)}: {text}" for (name, text), runs in carriers.items()]


def _entries(protocol: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in protocol.items():
        if isinstance(value, Mapping):
            yield from _entries(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _size(counts: Mapping[str, Any]) -> str:
    return f"{counts['frames_scored']} frames of {counts['videos_scored']} videos"


def lookup(document: Mapping[str, Any], dataset: str, metric: str) -> float | None:
    """Returns ``<level>_<metric>`` of a dataset, ``None`` where the document has no such number."""
    level, _, name = metric.partition("_")
    block = document["datasets"].get(dataset)
    if block is None:
        return None
    if name == "loss":
        return None if block["loss"] is None else block["loss"]["overall"]
    return None if block[level] is None else block[level][name]


def difference(before: float | None, after: float | None, metric: str) -> str:
    """Returns the signed change in words for people: ``+0.0500 better``."""
    if before is None or after is None:
        return ABSENT
    change = after - before
    if abs(change) < 5e-5:
        return "0.0000"
    lower = metric.partition("_")[2] in LOWER_IS_BETTER
    return f"{change:+.4f} {'better' if (change < 0) == lower else 'worse'}"


def summary_line(block: Mapping[str, Any]) -> str:
    """Returns one dataset in one line of the log."""
    if block["status"] == "failed":
        return f"failed: {block['reason']}"
    video, frame, counts = block["video"], block["frame"], block["counts"]
    return (
        f"video AUC {number(video['auc'])}, frame AUC {number(frame['auc'])}, "
        f"{counts['frames_scored']} of {counts['frames_listed']} frames, {counts['videos_scored']} videos, "
        f"{block['timings']['frames_per_s']:.1f} frames/s"
    )


def number(value: float | None) -> str:
    """Returns a rate with four decimals, or a dash."""
    return ABSENT if value is None else f"{value:.4f}"


def interval(value: Sequence[float] | None) -> str:
    """Returns ``[low, high]``, or a dash."""
    return ABSENT if value is None else f"[{value[0]:.3f}, {value[1]:.3f}]"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows in columns, the first two left-aligned, the others right-aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
