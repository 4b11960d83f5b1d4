"""What a mean over datasets hides: fakes of one beside reals of another, and the group that fares worst."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from effort_finetune.core.metrics import binary_metrics
from effort_finetune.core.weighted import FloatArray, IntArray

Videos = tuple[IntArray, FloatArray]


def across_datasets(videos: Mapping[str, Videos], groups: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns Cross-AUC over pairs of datasets and the worst label group, by video.

    A detector whose scores stand at another level on each dataset has good AUCs and bad cross ones: no single
    threshold serves it.

    Args:
        videos: Dataset to labels ``[V]`` and probabilities of fake ``[V]``.
        groups: Dataset to its rows of :func:`~effort_finetune.evaluate.group_rows.group_rows`.

    Returns:
        ``cross_auc``: ``pairs`` (``reals_of``, ``fakes_of``, ``auc``), their ``mean`` and ``worst``, ``None``
        with fewer than two datasets; ``worst_group``: ``dataset``, ``group`` and ``auc`` of the group with
        the lowest AUC (fakes against their dataset's reals), ``None`` where there are no groups.
    """
    pairs = []
    for reals_of, (label, prob) in videos.items():
        for fakes_of, (other_label, other_prob) in videos.items():
            reals, fakes = prob[label == 0], other_prob[other_label == 1]
            if reals_of == fakes_of or not len(reals) or not len(fakes):
                continue
            both = np.r_[np.zeros(len(reals), dtype=np.int64), np.ones(len(fakes), dtype=np.int64)]
            auc = binary_metrics(both, np.r_[reals, fakes])["auc"]
            if auc is not None:
                pairs.append({"reals_of": reals_of, "fakes_of": fakes_of, "auc": auc})
    cross = None
    if pairs:
        values = [pair["auc"] for pair in pairs]
        cross = {"pairs": pairs, "mean": float(np.mean(values)), "worst": min(values)}
    worst = None
    for dataset, rows in groups.items():
        for group, row in rows.items():
            if row["auc"] is not None and (worst is None or row["auc"] < worst["auc"]):
                worst = {"dataset": dataset, "group": group, "auc": row["auc"]}
    return {"cross_auc": cross, "worst_group": worst}
