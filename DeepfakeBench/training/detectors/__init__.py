"""Detectors; importing this package fills DETECTOR."""

from importlib.util import find_spec

from metrics.registry import DETECTOR

from .base_detector import AbstractDetector
from .meso4_detector import Meso4Detector

# >>> effort-finetune: register
if find_spec(f"{__name__}.effort_finetune_detector") is not None:
    from . import effort_finetune_detector  # noqa: F401
# <<< effort-finetune

__all__ = ["DETECTOR", "AbstractDetector", "Meso4Detector"]
