"""What of the training data may explain a low number, as far as the opened rows tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effort_finetune.train.validation import FEW, class_videos

if TYPE_CHECKING:
    from effort_finetune.train.data import RunData

#: Frames of the larger class over those of the smaller one that call for weights.
UNEVEN = 10


def data_notes(data: RunData) -> list[str]:
    """Returns sentences on classes, videos, and frames that are in both classes."""
    real, fake = data.counts
    (videos,) = class_videos({"": data.train}).values()
    notes = []
    if not (real and fake):
        notes.append("all training frames are of one class")
    elif max(real, fake) > UNEVEN * min(real, fake):
        notes.append(f"{real} real and {fake} fake frames (loss.class_weights or balance)")
    if min(videos) < FEW:
        notes.append(f"{videos[0]} real and {videos[1]} fake videos are trained on")
    labels: dict[tuple[str, str], int] = {}
    both = sum(labels.setdefault((r.dataset, r.path), r.label) != r.label for r in data.train.rows)
    if both:
        notes.append(f"{both} frames are listed as real and as fake")
    return notes
