"""The host's own metric function on our scores, so that a number can be compared with its logs."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from effort_finetune.evaluate.predictions import Scores
    from effort_finetune.host import Host

logger = logging.getLogger(__name__)

#: What a host returns beside scalars: the arrays it was given.
_ARRAYS = ("pred", "label")


def host_metrics(host: Host, scores: Scores, paths: Sequence[str]) -> dict[str, Any]:
    """Calls ``get_test_metrics`` of the host on copies of the frame scores.

    It is a second opinion, with the host's own rules (a video is a folder's name, for one), and never
    feeds our numbers. It is foreign code that is known to raise on small or one-class sets, so what it
    raises is recorded as the reason, whatever it is.

    Args:
        host: The open host.
        scores: Frame scores, in the order of the dataset.
        paths: Path of each scored frame as the host's index has it.

    Returns:
        ``values`` (scalar name to number or ``None``) and ``null_reasons``; on an exception ``values`` is
        ``None`` and the reason stands under ``get_test_metrics``.
    """
    if not len(scores.index):
        return {"values": None, "null_reasons": {"get_test_metrics": "no sample was scored"}}
    output = io.StringIO()
    try:
        # What it prints or warns of on the way is for the log; what it could not compute is recorded below.
        with contextlib.redirect_stdout(output), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            # Copies: upstream's function writes into y_true.
            returned = host.get_test_metrics(
                y_pred=scores.prob.copy(), y_true=scores.label.copy(), img_names=list(paths)
            )
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".strip()
        return {"values": None, "null_reasons": {"get_test_metrics": reason}}
    for line in (*output.getvalue().splitlines(), *(str(w.message) for w in warned)):
        logger.debug("host's get_test_metrics: %s", line)
    values: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for name, value in returned.items():
        if name in _ARRAYS or np.ndim(value) != 0:
            continue
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue  # a host may return text; only numbers are metrics
        values[name] = number if np.isfinite(number) else None
        if values[name] is None:
            reasons[name] = f"the host returned {number}"
    return {"values": values, "null_reasons": reasons}
