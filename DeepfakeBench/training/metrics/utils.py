"""Test metrics of one dataset, per frame and per video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

THRESHOLD = 0.5


def video_key(img_name: str | Sequence[str]) -> str:
    """Return the folder of a frame, written with slashes, as the identity of its video.

    The whole folder counts, because two forgeries of one source share the last component.
    A clip (a sequence of frame paths) belongs to the folder of its first frame.
    """
    first = img_name if isinstance(img_name, str) else img_name[0]
    return str(first).replace("\\", "/").rpartition("/")[0]


def binary_metrics(label: np.ndarray, prob: np.ndarray) -> dict[str, float | None]:
    """Compute accuracy, AUC, EER and average precision.

    Args:
        label: int [N], 0 real, 1 fake.
        prob: float [N], probability of fake.

    Returns:
        ``acc`` at threshold 0.5, ``auc``, ``eer`` (the false positive rate where it is nearest to the false
        negative rate) and ``ap``. All but ``acc`` are None when only one class is present; all are None for N
        = 0.
    """
    # Here, because it takes seconds, and everything that only builds a detector imports this module.
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    if len(label) == 0:
        return {"acc": None, "auc": None, "eer": None, "ap": None}
    acc = float(np.mean((prob > THRESHOLD) == (label == 1)))
    if len(np.unique(label)) < 2:
        return {"acc": acc, "auc": None, "eer": None, "ap": None}
    fpr, tpr, _ = roc_curve(label, prob, pos_label=1)
    return {
        "acc": acc,
        "auc": float(roc_auc_score(label, prob)),
        "eer": float(fpr[np.argmin(np.abs((1 - tpr) - fpr))]),
        "ap": float(average_precision_score(label, prob)),
    }


def video_means(
    prob: np.ndarray, label: np.ndarray, img_names: Sequence[str | Sequence[str]]
) -> tuple[np.ndarray, np.ndarray]:
    """Average the frames' probabilities per video.

    A video is a folder together with a label, so that equal folder names never merge a real and a fake video.

    Returns:
        Probability float [V] and label int [V], in order of first appearance.
    """
    groups: dict[tuple[str, int], list[float]] = {}
    for value, target, name in zip(prob, label, img_names, strict=True):
        groups.setdefault((video_key(name), int(target)), []).append(float(value))
    means = np.array([np.mean(values) for values in groups.values()], dtype=np.float64)
    return means, np.array([target for _, target in groups], dtype=np.int64)


def get_test_metrics(y_pred: Any, y_true: Any, img_names: Sequence[str | Sequence[str]]) -> dict[str, Any]:
    """Compute the metrics of one test set. The arguments are not changed.

    Args:
        y_pred: float [N], probability of fake.
        y_true: int [N], 0 real; every value above 0 is fake.
        img_names: N frame paths, with backslashes or slashes.

    Returns:
        ``acc, auc, eer, ap, video_acc, video_auc, video_eer`` (float, or None where one class alone is
        present), ``pred`` float [N] and ``label`` int [N] with values 0 and 1.

    Raises:
        ValueError: The lengths differ, or a probability is not finite.
    """
    prob = np.array(y_pred, dtype=np.float64).reshape(-1)
    label = (np.asarray(y_true).reshape(-1) > 0).astype(np.int64)
    if not len(prob) == len(label) == len(img_names):
        raise ValueError(
            f"{len(prob)} predictions, {len(label)} labels and {len(img_names)} names do not belong together"
        )
    if not np.all(np.isfinite(prob)):
        raise ValueError(f"{int(np.sum(~np.isfinite(prob)))} of {len(prob)} predictions are not finite")
    frame = binary_metrics(label, prob)
    video_prob, video_label = video_means(prob, label, img_names)
    video = binary_metrics(video_label, video_prob)
    return {
        **frame,
        "pred": prob,
        "video_acc": video["acc"],
        "video_auc": video["auc"],
        "video_eer": video["eer"],
        "label": label,
    }
# >>> effort-finetune
import importlib.util
if importlib.util.find_spec('effort_finetune'):
    from effort_finetune.guest.host_results import with_precision_recall_f1
    get_test_metrics = with_precision_recall_f1(get_test_metrics)
# <<< effort-finetune
