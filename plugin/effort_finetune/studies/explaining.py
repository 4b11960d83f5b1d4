"""Explains the gap between two results with the first one's own data and weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from effort_finetune.config import settings_from_config
from effort_finetune.core.errors import UserError
from effort_finetune.data.dataset_name import labels_of
from effort_finetune.studies.difference_factors import Document, Reading, Variant
from effort_finetune.studies.explanation import ROUNDING, Explainer, Explanation
from effort_finetune.studies.scoring_again import ScoringAgain, obeyed

if TYPE_CHECKING:
    from effort_finetune.host import Host


def explained(
    documents: tuple[Document, Document],
    host: Host,
    dataset: str,
    metric: str,
    weights: Path,
    *,
    device: str = "auto",
    checkpoints: Sequence[Path] = (),
    rounding: float = ROUNDING,
) -> Explanation:
    """Measures what two results differ in.

    Args:
        documents: Two results; the first is a whole results document, the second states at least the metric.
        host: The host with the first result's data.
        dataset: The dataset's name in both.
        metric: ``<level>_<metric>``, stated by both.
        weights: The first result's checkpoint.
        device: Where frames are scored.
        checkpoints: Files that the second may have been measured with, where it states none.
        rounding: Half a unit of the last digit that the second result states.

    Raises:
        UserError: If the first result's data or weights cannot be read.
    """
    first = documents[0]
    settings = settings_from_config(first["settings"]).changed(device=device, output_dir=None)
    label_of = labels_of(settings, settings.test_dataset)
    name = next((name for name, label in label_of.items() if label == dataset), dataset)
    start = Variant(
        obeyed(settings, weights),
        weights,
        Reading(threshold=float(first["protocol"].get("threshold", 0.5))),
    )
    again = ScoringAgain(host, name)
    # A checkpoint of this machine is put back; one that only its path is known of is no value to try.
    second = documents[1]
    path = (second.get("checkpoint") or {}).get("path")
    if path is not None and not Path(path).exists():
        second = {**second, "checkpoint": {**second["checkpoint"], "path": None}}
    given = {"checkpoint": [str(file) for file in checkpoints]}
    explainer = Explainer((first, second), dataset, start, again, candidates=given, rounding=rounding)
    return explainer.explain(metric, unmeasurable=UserError)
