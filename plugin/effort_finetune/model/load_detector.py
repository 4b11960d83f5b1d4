"""A detector from a weights file alone, ready to score."""

from __future__ import annotations

from pathlib import Path

from effort_finetune.config import Settings
from effort_finetune.core.device import choose_device
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.weights.first_look import look_at
from effort_finetune.weights.reader import read_checkpoint


def load_detector(
    weights: Path | str, settings: Settings | None = None, *, device: str = "auto"
) -> EffortFinetuneDetector:
    """Builds the detector of a checkpoint of any known layout.

    Args:
        weights: A checkpoint, an adapter or a model folder.
        settings: What it is built with; ``None``: the defaults, at the checkpoint's own resolution.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Returns:
        The detector in evaluation mode. Called with ``{"image": float32[B, 3, H, W]}`` (normalised) it
        returns ``cls`` float32[B, 2], ``prob`` float32[B] and ``feat`` float32[B, d].

    Raises:
        UserError: If the file cannot be used.
    """
    look_at(weights)
    path = str(Path(weights).expanduser().resolve())
    if settings is None:
        settings = Settings(resolution=read_checkpoint(path).resolution)
    detector = EffortFinetuneDetector(settings.changed(pretrained_weights=path))
    return detector.to(choose_device(device)).eval()
