"""What a host's ``get_test_metrics`` returns beyond its own, in runs the plugin takes part in."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from effort_finetune.core.files import sha256_file

MetricFunction = Callable[..., dict[str, Any]]

_taking_part = False


def take_part() -> None:
    """Marks this process as a run of the plugin's detector or trainer, or one that asked for our JSON."""
    global _taking_part
    _taking_part = True


def with_precision_recall_f1(get_test_metrics: MetricFunction) -> MetricFunction:
    """Wraps a host's ``get_test_metrics`` so that it also returns frame precision, recall and F1.

    Threshold and labels are the host's: fake when the probability is above 0.5, a label >= 1 is fake. A
    ratio with nothing below its line is left out. Runs the plugin takes no part in get what they always
    got, because a host's trainer logs every value it is given.
    """

    @functools.wraps(get_test_metrics)
    def extended(*args: Any, **kwargs: Any) -> dict[str, Any]:
        result = get_test_metrics(*args, **kwargs)
        return {**result, **_precision_recall_f1(result)} if _taking_part else result

    return extended


def json_document(
    metrics: Mapping[str, Mapping[str, Any]],
    *,
    weights: str | None,
    sha256: str | None,
    **context: Any,
) -> dict[str, Any]:
    """What ``test.py`` writes to ``--output_json``.

    Args:
        metrics: What the host measured, by dataset.
        weights: ``--weights_path``: a file, or a folder for our detector. The host's default may name none.
        sha256: Of the weights file, where it is known; computed where it is not.
        context: What else the document holds.
    """
    path = Path(weights) if weights and Path(weights).exists() else None
    if sha256 is None and path is not None and path.is_file():
        sha256 = sha256_file(path)
    datasets = {name: as_json(values) for name, values in metrics.items()}
    return {
        "computed_by": "the host's get_test_metrics, for which a video is its folder's name",
        "host": context.pop("host"),
        "model_name": context.pop("model_name"),
        "weights_path": None if path is None else str(path),
        "weights_sha256": sha256,
        "datasets": datasets,
        "avg": mean_of_shared(datasets),
        **context,
    }


def as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """A host's metrics as JSON: numbers, ``null`` for those that are not finite, counts of the labels."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        array = np.asarray(value)
        if array.ndim == 0 and np.issubdtype(array.dtype, np.number):
            result[name] = float(array) if np.isfinite(array) else None
        elif name == "label":
            fake = int(np.sum(array >= 1))
            result.update(frames=len(array), frames_real=len(array) - fake, frames_fake=fake)
    return result


def mean_of_shared(datasets: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The mean over the datasets of every metric that all of them have."""
    rows = list(datasets.values())
    shared = [name for name in (rows[0] if rows else ()) if not name.startswith("frames")]
    return {
        name: sum(row[name] for row in rows) / len(rows)
        for name in shared
        if all(row.get(name) is not None for row in rows)
    }


def _precision_recall_f1(result: Mapping[str, Any]) -> dict[str, float]:
    called, fake = np.asarray(result["pred"]) > 0.5, np.asarray(result["label"]) >= 1
    hits = int(np.sum(called & fake))
    ratios = {
        "precision": (hits, int(np.sum(called))),
        "recall": (hits, int(np.sum(fake))),
        "f1": (2 * hits, int(np.sum(called)) + int(np.sum(fake))),
    }
    return {name: above / below for name, (above, below) in ratios.items() if below}
