"""Precision, recall and F1 beside what a host's ``get_test_metrics`` returns."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np


def with_precision_recall_f1(get_test_metrics: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a host's ``get_test_metrics`` so that it also returns frame precision, recall and F1.

    Threshold and labels are the host's: fake when the probability is above 0.5, a label >= 1 is fake. Scores
    and labels are the arguments ``y_pred`` and ``y_true`` of the call, however it gives them and whatever
    else it takes. A ratio with nothing below its line is left out, and so is one that the host computes
    itself; a result that is no mapping stays as it is.

    Returns:
        The wrapped function; its attribute ``without_effort_finetune`` is the host's own.
    """
    signature = inspect.signature(get_test_metrics)

    @functools.wraps(get_test_metrics)
    def extended(*args: Any, **kwargs: Any) -> Any:
        result = get_test_metrics(*args, **kwargs)
        given = signature.bind(*args, **kwargs).arguments
        if not isinstance(result, dict) or not {"y_pred", "y_true"} <= set(given):
            return result
        return {**_precision_recall_f1(given["y_pred"], given["y_true"]), **result}

    extended.without_effort_finetune = get_test_metrics  # type: ignore[attr-defined]
    return extended


def _precision_recall_f1(y_pred: Any, y_true: Any) -> dict[str, float]:
    """The ratios of ``y_pred`` (probabilities of fake) and ``y_true``, both [N]; nothing for other shapes."""
    prob, label = np.asarray(y_pred), np.asarray(y_true)
    prob = prob[..., 0] if prob.ndim == 2 and prob.shape[1] == 1 else prob
    if prob.ndim != 1 or prob.shape != label.shape:
        return {}
    called, fake = prob > 0.5, label >= 1
    hits = int(np.sum(called & fake))
    ratios = {
        "precision": (hits, int(np.sum(called))),
        "recall": (hits, int(np.sum(fake))),
        "f1": (2 * hits, int(np.sum(called)) + int(np.sum(fake))),
    }
    return {name: above / below for name, (above, below) in ratios.items() if below}
