"""Explains the gap between two results with the first one's own data and weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effort_finetune.config import settings_from_config
from effort_finetune.core.errors import UserError
from effort_finetune.core.files import sha256_file
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
    second = {**documents[1], "checkpoint": _of_second(documents, checkpoints)}
    given = {"checkpoint": [str(file) for file in checkpoints]}
    explainer = Explainer((first, second), dataset, start, again, candidates=given, rounding=rounding)
    return explainer.explain(metric, unmeasurable=UserError)


def _of_second(documents: tuple[Document, Document], checkpoints: Sequence[Path]) -> dict[str, Any]:
    """Returns the second result's checkpoint with its path as it is here.

    Weights are what their hash says, wherever they lie and whatever was written over them since. Weights that
    are known to be others and are not here are a difference that cannot be put back; a path that is not here
    and says nothing of its content is no value to try.
    """
    first, second = (document.get("checkpoint") or {} for document in documents)
    path, own, sha256 = second.get("path"), first.get("sha256"), second.get("sha256")
    if sha256 is not None and sha256 == own:
        path = first.get("path")
    elif path is not None and Path(path).is_dir():
        pass  # an export of many files
    elif sha256 is not None and own is not None:
        files = [Path(file) for file in (path, *checkpoints) if file is not None and Path(file).is_file()]
        here = next((file for file in files if sha256_file(file) == sha256), None)
        path = f"{path} (SHA-256 {sha256[:16]}, not here)" if here is None else str(here)
    elif path is not None and not Path(path).exists():
        path = None
    return {**second, "path": path}
