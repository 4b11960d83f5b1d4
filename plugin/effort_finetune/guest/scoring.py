"""Measuring a model on a loader that a host made: no frame index in its batches, only an order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from effort_finetune.core.metrics import METRICS, binary_metrics
from effort_finetune.core.precision import Precision
from effort_finetune.evaluate.host_metrics import host_metrics
from effort_finetune.evaluate.predictions import score
from effort_finetune.evaluate.video import video_scores

if TYPE_CHECKING:
    from effort_finetune.host import Host


@dataclass(frozen=True, slots=True)
class HostFrame:
    """A row of a host's dataset; its video is the frame's whole folder path, not the folder's name."""

    path: str
    video: str


def measure_loader(
    model: nn.Module,
    loader: DataLoader[Any],
    host: Host | None,
    *,
    name: str,
    threshold: float,
    device: torch.device,
    precision: Precision,
) -> tuple[dict[str, float], dict[str, float]]:
    """Scores a host's test loader.

    Args:
        model: The detector, on ``device``.
        loader: In the dataset's order; ``loader.dataset.data_dict['image']`` lists the frames.
        host: Adds its own ``get_test_metrics`` as ``host_<name>``; ``None`` leaves them out.
        name: Dataset, for the progress bar.
        threshold: Probability above which a frame or video is called fake.
        device: Where the model is.
        precision: Arithmetic of the forward pass.

    Returns:
        Metrics that can be computed (``auc`` of frames, ``video_auc`` and so on), and the losses.
    """
    scores = score(model, _indexed(loader), device=device, autocast=precision.dtype, desc=name)
    rows = [_frame(path) for path in loader.dataset.data_dict["image"]]  # type: ignore[attr-defined]
    videos = video_scores(rows, scores)  # type: ignore[arg-type]
    levels = {"": (scores.label, scores.prob), "video_": (videos.label, videos.prob)}
    values: dict[str, float | None] = {}
    for prefix, (label, prob) in levels.items():
        block = binary_metrics(label, prob, threshold=threshold)
        values.update({f"{prefix}{metric}": block[metric] for metric in METRICS})
    if host is not None:
        paths = [rows[index].path for index in scores.index.tolist()]
        own = host_metrics(host, scores, paths)["values"] or {}
        values.update({f"host_{metric}": value for metric, value in own.items()})
    return _known(values), _known(scores.loss)


def _indexed(loader: DataLoader[Any]) -> Iterator[Mapping[str, Any]]:
    """Adds to each batch the position of its frames, which a sequential loader implies."""
    position = 0
    for batch in loader:
        size = len(batch["label"])
        if "index" in batch:
            yield batch
        else:
            yield {**batch, "index": torch.arange(position, position + size)}
        position += size


def _frame(path: Any) -> HostFrame:
    # A host's video datasets list several frames a sample; the first names the video.
    text = str(path[0] if isinstance(path, list | tuple) else path)
    folder, _, _ = text.replace("\\", "/").rpartition("/")
    return HostFrame(text, folder)


def _known(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}
