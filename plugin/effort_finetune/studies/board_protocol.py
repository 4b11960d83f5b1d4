"""Which cells of a column were measured by one protocol: only those may stand in one table unasked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from effort_finetune.core.metrics import TABLE

#: What makes two test sets one; size, mean and interpolation of the pixels are the detector's own.
RULES = ("split", "frames_asked", "loader", "frame_sampling", "compression", "video_score", "video_grouping")
#: Rules of verdicts; they matter where a metric of the table goes by verdicts.
VERDICTS = ("threshold", "verdict_rule")


def protocol_of(document: Mapping[str, Any], dataset: str, metrics: Sequence[str]) -> dict[str, Any]:
    """Returns what a cell was measured by.

    Args:
        document: Its results.
        dataset: The dataset.
        metrics: The metrics of the table.

    Returns:
        Rule to value, ``None`` where the results do not say; ``frames`` is a hash of what was scored.
    """
    rules: tuple[str, ...] = RULES
    if any(TABLE[name].at_threshold for metric in metrics if (name := metric.partition("_")[2]) in TABLE):
        rules = (*RULES, *VERDICTS)
    block = document["datasets"][dataset]
    frames = block.get("frames_sha256")
    return {**{rule: document["protocol"].get(rule) for rule in rules}, "frames": frames and frames[:12]}


def differences(protocols: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Returns the cells of one column whose protocol is not that of most.

    What a cell does not state counts as the same, except for the frames: without them nothing is known to be.

    Args:
        protocols: Cell to its protocol.

    Returns:
        Cell to what differs, ``rule: own instead of that of most``.
    """
    found: dict[str, list[str]] = {}
    for rule in dict.fromkeys(rule for protocol in protocols.values() for rule in protocol):
        values = {cell: protocol.get(rule) for cell, protocol in protocols.items()}
        known = Counter(value for value in values.values() if value is not None)
        if not known:
            continue
        usual = known.most_common(1)[0][0]
        for cell, value in values.items():
            if value != usual and (value is not None or rule == "frames"):
                found.setdefault(cell, []).append(f"{rule} {_shown(value)} instead of {_shown(usual)}")
    return found


def _shown(value: Any) -> str:
    return "not stated" if value is None else str(value)
