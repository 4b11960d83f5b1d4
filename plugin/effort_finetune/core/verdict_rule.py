"""Whether a score at the threshold itself is a fake: ``>`` says no, ``>=`` says yes.

Our own verdicts, and those of DeepfakeBench, use ``>``; others use ``>=``, and a detector that often answers
with the threshold itself has other errors by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

ABOVE, AT_LEAST = ">", ">="
RULES = (ABOVE, AT_LEAST)


def strict_threshold(threshold: float, rule: str) -> float:
    """Returns the threshold whose ``>`` gives the same verdicts of float64 scores as ``rule`` does.

    ``p >= t`` and ``p > u`` are the same for every float64 p if u is the largest float64 below t.

    Args:
        threshold: The threshold.
        rule: One of :data:`RULES`.
    """
    if rule not in RULES:
        raise ValueError(f"a verdict rule is one of {RULES}, got {rule!r}")
    return threshold if rule == ABOVE else float(np.nextafter(threshold, -np.inf))


def threshold_of(protocol: Mapping[str, Any]) -> float:
    """Returns the threshold of a results file's verdicts, to be compared with ``>``.

    Args:
        protocol: Its protocol block; one that states no rule goes by ``>``.
    """
    return strict_threshold(float(protocol.get("threshold", 0.5)), protocol.get("verdict_rule", ABOVE))
